// Times the CUDA forward pass at the shapes of Llama-3-8B and Llama-3.2-1B with random NF4
// weights: the shapes alone decide the time. Prints one JSON object.
//
//   cuda_forward_bench [--shape 8b|1b|500m|300m] [--quick]
#include <cuda_runtime_api.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <functional>
#include <random>
#include <string>
#include <vector>

#include "CLI/CLI.hpp"
#include "bench/read_bandwidth.h"
#include "common/kernels/cuda/matrix_pack.h"
#include "common/model/cuda_forward.h"
#include "nlohmann/json.hpp"

namespace tandem {
namespace {

ModelConfig ShapeOf(const std::string& name) {
  ModelConfig config = {.name = name,
                        .num_layers = 32,
                        .hidden_dim = 4096,
                        .ffn_dim = 14336,
                        .num_heads = 32,
                        .num_kv_heads = 8,
                        .head_dim = 128,
                        .rope_dim = 128,
                        .vocab_size = 128256,
                        .context_length = 1 << 17};
  if (name != "8b") {
    config.num_layers = name == "1b" ? 16 : (name == "500m" ? 8 : 4);
    config.hidden_dim = 2048;
    config.ffn_dim = 8192;
    config.head_dim = 64;
    config.rope_dim = 64;
    config.tied_head = true;
  }
  config.rope_inv_freq.assign(static_cast<size_t>(config.rope_dim / 2), 0.01f);
  return config;
}

// Random NF4 weights. The arena is filled from one block of random bytes.
class RandomWeights {
 public:
  RandomWeights(const ModelConfig& config, DeviceLedger* ledger) : config_(config) {
    Build();  // counts
    weights_.memory = DeviceBuffer::Allocate(ledger, MemoryKind::kWeights, taken_).value();
    Fill();
    base_ = weights_.memory.data();
    taken_ = 0;
    Build();
    const std::vector<float> ones(static_cast<size_t>(config.hidden_dim), 1.0f);
    cudaMemcpy(const_cast<float*>(weights_.output_norm), ones.data(), ones.size() * 4,
               cudaMemcpyHostToDevice);
  }
  const CudaWeights& weights() const { return weights_; }
  // Bytes a decode of one row reads: all but the embedding table.
  int64_t read_bytes() const {
    return weights_.memory.num_bytes() - (config_.tied_head ? 0 : embedding_bytes_);
  }

 private:
  uint8_t* Take(int64_t bytes) {
    const int64_t offset = taken_;
    taken_ += (bytes + 255) / 256 * 256;
    return base_ == nullptr ? nullptr : base_ + offset;
  }
  void Matrix(int32_t rows, int32_t cols, cuda::DeviceMatrix* matrix) {
    const auto format = cuda::MatrixFormat::kNf4;
    *matrix = {.format = format,
               .num_rows = rows,
               .num_cols = cols,
               .num_chunks = static_cast<int32_t>(cuda::PaddedCols(cols) / cuda::kChunkCols),
               .chunks = Take(cuda::MatrixBytes(format, rows, cols))};
    std::copy_n(cuda::kNf4Codebook, 16, matrix->codebook);
    const int64_t floats = 2 * cuda::PaddedRows(rows);
    auto* scales = reinterpret_cast<float*>(Take(floats * 4));
    matrix->row_scales = scales;
    if (scales == nullptr) return;
    std::vector<float> values(static_cast<size_t>(floats));
    for (size_t i = 0; i < values.size(); i += 2) {
      values[i] = 1e-4f;
      values[i + 1] = 1e-6f;
    }
    cudaMemcpy(scales, values.data(), values.size() * 4, cudaMemcpyHostToDevice);
  }
  void Build() {
    const int32_t q_dim = config_.num_heads * config_.head_dim;
    const int32_t kv_dim = config_.num_kv_heads * config_.head_dim;
    Matrix(config_.vocab_size, config_.hidden_dim, &weights_.embedding);
    embedding_bytes_ = taken_;
    if (config_.tied_head) {
      weights_.head = weights_.embedding;
    } else {
      Matrix(config_.vocab_size, config_.hidden_dim, &weights_.head);
    }
    const auto* norm = reinterpret_cast<const float*>(Take(config_.hidden_dim * 4));
    weights_.output_norm = norm;
    weights_.rope_inv_freq = norm;
    weights_.layers.resize(static_cast<size_t>(config_.num_layers));
    for (CudaLayerWeights& layer : weights_.layers) {
      layer.attention_norm = norm;
      layer.ffn_norm = norm;
      layer.qkv.resize(1);
      Matrix(q_dim + 2 * kv_dim, config_.hidden_dim, &layer.qkv[0].matrix);
      Matrix(config_.hidden_dim, q_dim, &layer.attention_output);
      Matrix(2 * config_.ffn_dim, config_.hidden_dim, &layer.gate_up);
      Matrix(config_.hidden_dim, config_.ffn_dim, &layer.down);
    }
  }
  void Fill() {
    std::vector<uint32_t> bytes((64 << 20) / 4);
    std::mt19937 random(1);
    for (uint32_t& word : bytes) word = random();
    const int64_t block = static_cast<int64_t>(bytes.size()) * 4;
    for (int64_t offset = 0; offset < weights_.memory.num_bytes(); offset += block) {
      cudaMemcpy(weights_.memory.data() + offset, bytes.data(),
                 std::min(block, weights_.memory.num_bytes() - offset), cudaMemcpyHostToDevice);
    }
  }

  const ModelConfig& config_;
  CudaWeights weights_;
  uint8_t* base_ = nullptr;
  int64_t taken_ = 0;
  int64_t embedding_bytes_ = 0;
};

double MedianMilliseconds(int turns, const std::function<void()>& run) {
  std::vector<double> times;
  for (int turn = 0; turn < turns + 3; ++turn) {
    const auto begin = std::chrono::steady_clock::now();
    run();
    const std::chrono::duration<double, std::milli> time = std::chrono::steady_clock::now() - begin;
    if (turn >= 3) times.push_back(time.count());
  }
  std::nth_element(times.begin(), times.begin() + turns / 2, times.end());
  return times[turns / 2];
}

// A forward pass over a pool of one KV type.
class Bench {
 public:
  Bench(const ModelConfig& config, const CudaWeights& weights, KvType kv_type, int32_t positions)
      : layout_({.num_layers = config.num_layers,
                 .num_kv_heads = config.num_kv_heads,
                 .head_dim = config.head_dim,
                 .k_type = kv_type,
                 .v_type = kv_type,
                 .page_positions = 64}) {
    const ExecutorLimits limits = {
        .max_step_tokens = 1024, .max_logits_rows = 32, .max_positions = positions};
    forward_ = CudaForward::Create(config, weights, limits, false, &ledger_).value();
    const int32_t num_pages = positions / 64;
    pages_ = DeviceBuffer::Allocate(&ledger_, MemoryKind::kKvPages,
                                    int64_t{num_pages} * layout_.page_bytes())
                 .value();
    cudaMemset(pages_.data(), 0x11, static_cast<size_t>(pages_.num_bytes()));
    for (int32_t page = 0; page < num_pages; ++page) table_.push_back(page);
    forward_
        ->Attach(
            {.base = pages_.data(), .page_bytes = layout_.page_bytes(), .num_pages = num_pages},
            layout_)
        .IgnoreError();
    tokens_.assign(1024, 17);
  }
  // Milliseconds of a step of `rows` rows of one sequence at `position`.
  double Step(int32_t position, int32_t rows, int32_t logits, int turns = 15) {
    const StepSequence sequence = {.start_position = position,
                                   .token_ids = absl::MakeConstSpan(tokens_).subspan(0, rows),
                                   .num_logits = logits,
                                   .page_table = table_};
    return MedianMilliseconds(turns, [&] { Check(forward_->Run({&sequence, 1})); });
  }
  // Milliseconds of one decode of each of `count` sequences at `position`.
  double Batch(int32_t position, int32_t count) {
    std::vector<StepSequence> sequences(static_cast<size_t>(count),
                                        {.start_position = position,
                                         .token_ids = absl::MakeConstSpan(tokens_).subspan(0, 1),
                                         .num_logits = 1,
                                         .page_table = table_});
    return MedianMilliseconds(15, [&] { Check(forward_->Run(sequences)); });
  }
  int64_t workspace_bytes() const { return forward_->workspace_bytes(); }

 private:
  static void Check(const absl::Status& status) {
    if (!status.ok()) std::fprintf(stderr, "%s\n", status.ToString().c_str());
  }

  DeviceLedger ledger_;
  KvLayout layout_;
  DeviceBuffer pages_;
  std::unique_ptr<CudaForward> forward_;
  std::vector<int32_t> table_;
  std::vector<int32_t> tokens_;
};

nlohmann::json MeasureKv(Bench& bench, const std::vector<int32_t>& contexts) {
  nlohmann::json out;
  for (const int32_t context : contexts) {
    nlohmann::json& at = out[std::to_string(context)];
    at["ms_1_row"] = bench.Step(context, 1, 1);
    at["ms_8_rows"] = bench.Step(context, 8, 8);
  }
  return out;
}

nlohmann::json Measure(const std::string& shape, bool is_quick) {
  const ModelConfig config = ShapeOf(shape);
  DeviceLedger ledger;
  const RandomWeights weights(config, &ledger);
  const double bandwidth = ReadBandwidth();
  nlohmann::json out = {{"shape", shape},
                        {"weights", "random, NF4"},
                        {"weight_bytes", weights.weights().memory.num_bytes()},
                        {"read_bytes_of_a_decode", weights.read_bytes()},
                        {"read_bandwidth", bandwidth}};
  const std::vector<int32_t> contexts =
      is_quick ? std::vector<int32_t>{0, 2048} : std::vector<int32_t>{0, 2048, 8192, 16384, 32000};
  Bench bench(config, weights.weights(), KvType::k4, 33 * 1024);
  out["workspace_bytes"] = bench.workspace_bytes();
  for (const int32_t rows : {1, 2, 4, 8, 9, 16, 32}) {
    out["rows_ms"][std::to_string(rows)] = bench.Step(0, rows, rows);
  }
  const double one = out["rows_ms"]["1"];
  out["decode_tokens_per_second"] = 1e3 / one;
  out["share_of_read_bandwidth"] =
      static_cast<double>(weights.read_bytes()) / (one * 1e-3) / bandwidth;
  out["rows_8_over_1"] = out["rows_ms"]["8"].get<double>() / one;
  out["kv_4bit"] = MeasureKv(bench, contexts);
  for (const int32_t count : {1, 8, 32}) {
    out["batch_ms_at_512"][std::to_string(count)] = bench.Batch(512, count);
  }
  double prefill = 0.0;
  for (int32_t start = 0; start < 2048; start += 1024) prefill += bench.Step(start, 1024, 1, 3);
  out["prefill_2k_tokens_per_second"] = 2048.0 / (prefill * 1e-3);
  if (!is_quick) {
    Bench half(config, weights.weights(), KvType::kF16, 33 * 1024);
    out["kv_f16"] = MeasureKv(half, {0, 2048, 32000});
    Bench eight(config, weights.weights(), KvType::k8, 33 * 1024);
    out["kv_8bit"] = MeasureKv(eight, {0, 2048, 32000});
  }
  return out;
}

nlohmann::json MeasureContext(const std::string& shape, int32_t context) {
  const ModelConfig config = ShapeOf(shape);
  DeviceLedger ledger;
  const RandomWeights weights(config, &ledger);
  Bench bench(config, weights.weights(), KvType::k4, 33 * 1024);
  return MeasureKv(bench, {context});
}

int Run(int argc, const char* const* argv) {
  CLI::App app("Times the CUDA forward pass.", "cuda_forward_bench");
  std::string shape = "8b";
  bool is_quick = false;
  int32_t context = -1;
  app.add_option("--shape", shape, "8b, 1b, 500m or 300m");
  app.add_flag("--quick", is_quick, "fewer contexts, 4-bit KV only");
  app.add_option("--context", context, "only steps of 1 and 8 rows there, for a profiler");
  CLI11_PARSE(app, argc, argv);
  if (context >= 0) {
    std::printf("%s\n", MeasureContext(shape, context).dump(1).c_str());
    return 0;
  }
  std::printf("%s\n", Measure(shape, is_quick).dump(1).c_str());
  return 0;
}

}  // namespace
}  // namespace tandem

int main(int argc, char** argv) { return tandem::Run(argc, argv); }
