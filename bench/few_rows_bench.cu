// Times shapes of the kernel for few rows at the matrices of Llama-3-8B and Llama-3.2-1B, NF4, and
// beside them the kernel for many rows.
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
#include <type_traits>
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
class TimedProduct {
 public:
  TimedProduct(const char* name, int32_t rows, int32_t cols, bool in_cache) : name_(name) {
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
    square_sums_ = Allocate<float>(int64_t{kMaxFewRows} * rows / 32, 0);
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
             .square_sums = square_sums_,
             .quantized = quantized_}};
  }
  GatedEnd Gated() const { return {quantized_}; }

  // Prints microseconds of one product of `rows` rows, the median of kTurns.
  template <class S, class End>
  void Time(int32_t rows, const End& end, bool has_norm) {
    const double us = Microseconds(
        rows, has_norm, [&](const MatmulInput& in, bool may_overlap, cudaStream_t stream) {
          return LaunchShape<S>(in, end, rows, {.stream = stream, .may_overlap = may_overlap});
        });
    cudaFuncAttributes attributes;
    Check(cudaFuncGetAttributes(&attributes, FewRowsKernel<S, End>));
    std::printf(
        "%-9s %3d rows  tiles %d teams %d slices %2d groups %d ahead %d blocks %d %7.2f us %5.0f "
        "GB/s  %3d registers, %3zu bytes spilled\n",
        name_, rows, S::kWarpTiles, S::kRowTiles / S::kWarpTiles, S::kSlices, S::kGroups, S::kAhead,
        S::kBlocksPerSm, us, static_cast<double>(weight_bytes_) / us / 1e3, attributes.numRegs,
        attributes.localSizeBytes);
  }

  // The same of the kernel for many rows.
  void TimeMany(MatmulEnd kind, int32_t rows, bool has_norm) {
    const double us = Microseconds(
        rows, has_norm, [&](const MatmulInput& in, bool may_overlap, cudaStream_t stream) {
          return LaunchMatmulManyRows({.input = in,
                                       .end = kind,
                                       .float_output = Store().out,
                                       .residual_output = Residual().out,
                                       .gated_output = quantized_},
                                      rows, {.stream = stream, .may_overlap = may_overlap});
        });
    std::printf("%-9s %3d rows  many %57.2f us %5.0f GB/s\n", name_, rows, us,
                static_cast<double>(weight_bytes_) / us / 1e3);
  }

 private:
  template <class LaunchOne>
  double Microseconds(int32_t rows, bool has_norm, const LaunchOne& launch) {
    Check(cudaMemcpy(num_rows_, &rows, sizeof rows, cudaMemcpyHostToDevice));
    cudaStream_t stream;
    Check(cudaStreamCreate(&stream));
    Check(cudaStreamBeginCapture(stream, cudaStreamCaptureModeGlobal));
    for (int i = 0; i < copies_; ++i) {
      MatmulInput in{.weights = matrix_, .x = x_, .num_rows = num_rows_};
      in.weights.chunks += i * stride_;
      if (has_norm) in.norm = norm_;
      Check(launch(in, i > 0, stream));
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
    cudaGraphExecDestroy(run);
    cudaGraphDestroy(graph);
    cudaStreamDestroy(stream);
    std::nth_element(times.begin(), times.begin() + kTurns / 2, times.end());
    return 1e3 * times[kTurns / 2] / copies_;
  }

  const char* name_;
  DeviceMatrix matrix_;
  int copies_ = 0;
  int64_t stride_ = 0;  // between the matrices of two launches
  int64_t weight_bytes_ = 0;
  Activations x_;
  RmsScale norm_;
  float* values_ = nullptr;
  float* norm_weights_ = nullptr;
  float* square_sums_ = nullptr;
  Activations quantized_;
  int32_t* num_rows_ = nullptr;
};

template <int warp_tiles, int teams, int slices, int groups, int ahead, int blocks>
using Of = Shape<kFormat, warp_tiles, teams, slices, groups, ahead, blocks>;

// The shapes worth a try for `rows` rows, which are g groups (0: a single row).
template <int g, class End>
void TimeShapes(TimedProduct& product, int rows, const End& end, bool norm) {
  if constexpr (std::is_same_v<End, GatedEnd>) {
    product.Time<Of<1, 4, 2, g, 1, 2>>(rows, end, norm);
    product.Time<Of<1, 4, 2, g, 2, 2>>(rows, end, norm);
    product.Time<Of<1, 4, 2, g, 4, 2>>(rows, end, norm);
    product.Time<Of<2, 4, 2, g, 1, 2>>(rows, end, norm);
    product.Time<Of<2, 4, 2, g, 2, 2>>(rows, end, norm);
    product.Time<Of<2, 2, 2, g, 2, 4>>(rows, end, norm);
    if (g == 4) product.Time<Of<4, 1, 4, g, 2, 2>>(rows, end, norm);
  } else if constexpr (std::is_same_v<End, ResidualEnd>) {
    product.Time<Of<1, 2, 8, g, 4, 1>>(rows, end, norm);
    product.Time<Of<1, 2, 8, g, 2, 1>>(rows, end, norm);
    product.Time<Of<2, 1, 8, g, 4, 1>>(rows, end, norm);
  } else {
    product.Time<Of<1, 1, 8, g, 4, 2>>(rows, end, norm);
    product.Time<Of<1, 1, 8, g, 2, 2>>(rows, end, norm);
    product.Time<Of<1, 1, 8, g, 2, 3>>(rows, end, norm);
    product.Time<Of<2, 1, 8, g, 2, 2>>(rows, end, norm);
    product.Time<Of<2, 1, 4, g, 1, 4>>(rows, end, norm);
    product.Time<Of<2, 1, 4, g, 2, 4>>(rows, end, norm);
    if (g == 4) product.Time<Of<4, 1, 4, g, 2, 2>>(rows, end, norm);
  }
}

template <class End>
void TimeProduct(TimedProduct product, const End& end, bool norm) {
  TimeShapes<0>(product, 1, end, norm);
  TimeShapes<1>(product, 8, end, norm);
  TimeShapes<2>(product, 16, end, norm);
  TimeShapes<4>(product, 32, end, norm);
  const MatmulEnd kind = std::is_same_v<End, GatedEnd>      ? MatmulEnd::kGated
                         : std::is_same_v<End, ResidualEnd> ? MatmulEnd::kResidual
                                                            : MatmulEnd::kFloat;
  for (int rows : {32, 64, 512}) product.TimeMany(kind, rows, norm);
}

}  // namespace
}  // namespace tandem::cuda

int main(int argc, char** argv) {
  using tandem::cuda::TimedProduct;
  using tandem::cuda::TimeProduct;
  const bool is_small = argc > 1 && std::strcmp(argv[1], "1b") == 0;
  const bool in_cache = argc > 2 && std::strcmp(argv[2], "cached") == 0;
  const int hidden = is_small ? 2048 : 4096;
  const int ffn = is_small ? 8192 : 14336;
  const TimedProduct qkv("qkv", is_small ? 3072 : 6144, hidden, in_cache);
  TimeProduct(qkv, qkv.Store(), true);
  const TimedProduct attention("attention", hidden, hidden, in_cache);
  TimeProduct(attention, attention.Residual(), false);
  const TimedProduct gate_up("gate_up", 2 * ffn, hidden, in_cache);
  TimeProduct(gate_up, gate_up.Gated(), true);
  const TimedProduct down("down", hidden, ffn, in_cache);
  TimeProduct(down, down.Residual(), false);
  const TimedProduct head("head", 128256, hidden, in_cache);
  TimeProduct(head, head.Store(), true);
  return 0;
}
