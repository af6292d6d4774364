// Times shapes of the kernel for few rows at the matrices of Llama-3-8B and Llama-3.2-1B, NF4.
// Weights are more than the second cache holds, or, with `cached`, one matrix; launches follow each
// other in a graph with programmatic dependent launch, as in a step. One line for each matrix, rows
// and shape.
//
//   few_rows_bench [8b|1b [cached]]
#include <algorithm>
#include <cstdio>
#include <cstring>
#include <random>
#include <string>
#include <vector>

#include "common/kernels/cuda/few_rows.cuh"

namespace tandem::cuda {
namespace {

constexpr MatrixFormat kFormat = MatrixFormat::kNf4;
constexpr int kTurns = 9;
constexpr int64_t kWeightBytes = 400 << 20;

void Check(cudaError_t error) {
  if (error == cudaSuccess) return;
  std::fprintf(stderr, "%s\n", cudaGetErrorString(error));
  std::exit(1);
}

template <class T>
T* Allocate(int64_t count, int byte) {
  void* data = nullptr;
  Check(cudaMalloc(&data, count * sizeof(T)));
  Check(cudaMemset(data, byte, count * sizeof(T)));
  return static_cast<T*>(data);
}

Activations MakeActivations(int32_t cols) {
  const auto padded = static_cast<int32_t>(PaddedCols(cols));
  return {.codes = Allocate<int8_t>(int64_t{kMaxFewRows} * padded, 3),
          .scales = Allocate<float>(int64_t{kMaxFewRows} * padded / kScaleCols, 0),
          .sums = Allocate<float>(int64_t{kMaxFewRows} * padded / kScaleCols, 0),
          .padded_cols = padded};
}

// One product of a step, over as many copies of its matrix as fill kWeightBytes.
class Product {
 public:
  Product(const char* name, int32_t rows, int32_t cols, bool in_cache) : name_(name) {
    const int64_t bytes = MatrixBytes(kFormat, rows, cols);
    const auto copies = static_cast<int>(std::max<int64_t>(8, kWeightBytes / bytes));
    auto* weights = Allocate<uint8_t>(bytes * copies, 0x5a);
    auto* scales = Allocate<float>(2 * PaddedRows(rows), 0);
    matrix_ = {.format = kFormat,
               .num_rows = rows,
               .num_cols = cols,
               .num_chunks = static_cast<int32_t>(PaddedCols(cols) / kChunkCols),
               .chunks = weights,
               .row_scales = scales};
    std::copy_n(kNf4Codebook, 16, matrix_.codebook);
    copies_ = copies;
    stride_ = in_cache ? 0 : bytes;
    weight_bytes_ = bytes;
    x_ = MakeActivations(cols);
    norm_ = {.square_sums = Allocate<float>(int64_t{kMaxFewRows} * cols / 32, 0),
             .num_blocks = cols / 32,
             .inverse_dim = 1.0f / static_cast<float>(cols),
             .epsilon = 1e-5f};
    values_ = Allocate<float>(int64_t{kMaxFewRows} * rows, 0);
    norm_weights_ = Allocate<float>(rows, 0);
    quantized_ = MakeActivations(rows);
    num_rows_ = Allocate<int32_t>(1, 0);
  }

  StoreEnd Store() const {
    return {{.values = values_, .stride = matrix_.num_rows, .num_outputs = matrix_.num_rows}};
  }
  ResidualEnd Residual() const {
    return {{.residual = values_,
             .dim = matrix_.num_rows,
             .norm_weights = norm_weights_,
             .square_sums = norm_weights_,
             .quantized = quantized_}};
  }
  GatedEnd Gated() const { return {quantized_}; }

  // Prints microseconds of one product of `rows` rows, the median of kTurns.
  template <class S, class End>
  void Time(int32_t rows, const End& end, bool has_norm) {
    Check(cudaMemcpy(num_rows_, &rows, sizeof rows, cudaMemcpyHostToDevice));
    cudaStream_t stream;
    Check(cudaStreamCreate(&stream));
    Check(cudaStreamBeginCapture(stream, cudaStreamCaptureModeGlobal));
    for (int i = 0; i < copies_; ++i) {
      MatmulInput in{.weights = matrix_, .x = x_, .num_rows = num_rows_};
      in.weights.chunks += i * stride_;
      if (has_norm) in.norm = norm_;
      Check(LaunchShape<S>(in, end, rows, {.stream = stream, .may_overlap = i > 0}));
    }
    cudaGraph_t graph;
    cudaGraphExec_t run;
    Check(cudaStreamEndCapture(stream, &graph));
    Check(cudaGraphInstantiate(&run, graph, 0));
    cudaEvent_t begin, finish;
    Check(cudaEventCreate(&begin));
    Check(cudaEventCreate(&finish));
    std::vector<float> times;
    for (int turn = 0; turn < kTurns + 2; ++turn) {
      Check(cudaEventRecord(begin, stream));
      Check(cudaGraphLaunch(run, stream));
      Check(cudaEventRecord(finish, stream));
      Check(cudaEventSynchronize(finish));
      float ms = 0.0f;
      Check(cudaEventElapsedTime(&ms, begin, finish));
      if (turn >= 2) times.push_back(ms);
    }
    std::nth_element(times.begin(), times.begin() + kTurns / 2, times.end());
    const double us = 1e3 * times[kTurns / 2] / copies_;
    cudaFuncAttributes attributes;
    Check(cudaFuncGetAttributes(&attributes, FewRowsKernel<S, End>));
    std::printf(
        "%-9s %2d rows  tiles %d teams %d slices %2d groups %d ahead %d blocks %d %7.2f us %5.0f "
        "GB/s"
        "  %3d registers, %3zu bytes spilled\n",
        name_, rows, S::kWarpTiles, S::kRowTiles / S::kWarpTiles, S::kSlices, S::kGroups, S::kAhead,
        S::kBlocksPerSm, us, static_cast<double>(weight_bytes_) / us / 1e3, attributes.numRegs,
        attributes.localSizeBytes);
    cudaGraphExecDestroy(run);
    cudaGraphDestroy(graph);
    cudaStreamDestroy(stream);
  }

 private:
  const char* name_;
  DeviceMatrix matrix_;
  int copies_ = 0;
  int64_t stride_ = 0;  // between the matrices of two launches
  int64_t weight_bytes_ = 0;
  Activations x_;
  RmsScale norm_;
  float* values_ = nullptr;
  float* norm_weights_ = nullptr;
  Activations quantized_;
  int32_t* num_rows_ = nullptr;
};

template <int warp_tiles, int teams, int slices, int groups, int ahead, int blocks>
using Of = Shape<kFormat, warp_tiles, teams, slices, groups, ahead, blocks>;

void TimeFloat(Product product, bool is_head) {
  const StoreEnd end = product.Store();
  if (is_head) {
    product.Time<Of<2, 1, 8, 1, 4, 2>>(8, end, true);
    product.Time<Of<1, 1, 4, 1, 2, 8>>(8, end, true);
    product.Time<Of<2, 1, 4, 1, 4, 4>>(8, end, true);
    product.Time<Of<2, 1, 4, 1, 2, 5>>(8, end, true);
    product.Time<Of<2, 1, 4, 2, 2, 4>>(16, end, true);
    product.Time<Of<2, 1, 4, 4, 2, 4>>(32, end, true);
    product.Time<Of<4, 1, 4, 4, 2, 2>>(32, end, true);
    product.Time<Of<4, 1, 4, 4, 1, 2>>(32, end, true);
  } else {
    product.Time<Of<1, 1, 8, 1, 4, 3>>(8, end, true);
    product.Time<Of<1, 1, 8, 1, 8, 2>>(8, end, true);
    product.Time<Of<1, 1, 8, 1, 4, 2>>(8, end, true);
    product.Time<Of<2, 1, 8, 2, 2, 2>>(16, end, true);
    product.Time<Of<1, 1, 8, 2, 4, 2>>(16, end, true);
    product.Time<Of<1, 1, 8, 4, 2, 2>>(32, end, true);
    product.Time<Of<4, 1, 8, 4, 2, 1>>(32, end, true);
  }
}

void TimeResidual(Product product) {
  const ResidualEnd end = product.Residual();
  product.Time<Of<1, 2, 16, 1, 2, 1>>(8, end, false);
  product.Time<Of<1, 2, 8, 1, 4, 1>>(8, end, false);
  product.Time<Of<1, 2, 8, 1, 8, 1>>(8, end, false);
  product.Time<Of<1, 2, 10, 1, 4, 1>>(8, end, false);
  product.Time<Of<1, 2, 8, 2, 4, 1>>(16, end, false);
  product.Time<Of<1, 2, 8, 2, 2, 1>>(16, end, false);
  product.Time<Of<1, 2, 8, 4, 2, 1>>(32, end, false);
  product.Time<Of<1, 2, 8, 4, 1, 1>>(32, end, false);
}

void TimeGated(Product product) {
  const GatedEnd end = product.Gated();
  product.Time<Of<1, 4, 4, 1, 2, 2>>(8, end, true);
  product.Time<Of<1, 4, 2, 1, 2, 4>>(8, end, true);
  product.Time<Of<1, 4, 2, 1, 4, 2>>(8, end, true);
  product.Time<Of<2, 2, 2, 1, 4, 4>>(8, end, true);
  product.Time<Of<2, 2, 4, 1, 4, 2>>(8, end, true);
  product.Time<Of<2, 2, 4, 2, 2, 2>>(16, end, true);
  product.Time<Of<1, 4, 2, 2, 2, 2>>(16, end, true);
  product.Time<Of<2, 2, 4, 4, 2, 2>>(32, end, true);
  product.Time<Of<4, 1, 4, 4, 2, 2>>(32, end, true);
  product.Time<Of<1, 4, 4, 4, 2, 1>>(32, end, true);
  product.Time<Of<1, 4, 2, 4, 2, 2>>(32, end, true);
}

}  // namespace
}  // namespace tandem::cuda

int main(int argc, char** argv) {
  using tandem::cuda::Product;
  const bool is_small = argc > 1 && std::strcmp(argv[1], "1b") == 0;
  const bool in_cache = argc > 2 && std::strcmp(argv[2], "cached") == 0;
  const int hidden = is_small ? 2048 : 4096;
  const int ffn = is_small ? 8192 : 14336;
  tandem::cuda::TimeFloat(Product("qkv", is_small ? 3072 : 6144, hidden, in_cache), false);
  tandem::cuda::TimeResidual(Product("attention", hidden, hidden, in_cache));
  tandem::cuda::TimeGated(Product("gate_up", 2 * ffn, hidden, in_cache));
  tandem::cuda::TimeResidual(Product("down", hidden, ffn, in_cache));
  tandem::cuda::TimeFloat(Product("head", 128256, hidden, in_cache), true);
  return 0;
}
