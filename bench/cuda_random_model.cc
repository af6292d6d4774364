#include "bench/cuda_random_model.h"

#include <cuda_runtime_api.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <random>

#include "common/kernels/cuda/matrix_pack.h"

namespace tandem {
namespace {

void Check(const absl::Status& status) {
  if (!status.ok()) std::fprintf(stderr, "%s\n", status.ToString().c_str());
}

}  // namespace

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

RandomWeights::RandomWeights(const ModelConfig& config, cuda::MatrixFormat format,
                             DeviceLedger* ledger)
    : config_(config), format_(format) {
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

uint8_t* RandomWeights::Take(int64_t bytes) {
  const int64_t offset = taken_;
  taken_ += (bytes + 255) / 256 * 256;
  return base_ == nullptr ? nullptr : base_ + offset;
}

void RandomWeights::Matrix(int32_t rows, int32_t cols, cuda::DeviceMatrix* matrix) {
  *matrix = {.format = format_,
             .num_rows = rows,
             .num_cols = cols,
             .num_chunks = static_cast<int32_t>(cuda::PaddedCols(cols) / cuda::kChunkCols),
             .chunks = Take(cuda::MatrixBytes(format_, rows, cols))};
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

void RandomWeights::Build() {
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

void RandomWeights::Fill() {
  std::vector<uint32_t> bytes((64 << 20) / 4);
  std::mt19937 random(1);
  // Also where two bytes are a scale it is a number, and a small one.
  for (uint32_t& word : bytes) word = static_cast<uint32_t>(random()) & 0x2fff2fffu;
  const int64_t block = static_cast<int64_t>(bytes.size()) * 4;
  for (int64_t offset = 0; offset < weights_.memory.num_bytes(); offset += block) {
    cudaMemcpy(weights_.memory.data() + offset, bytes.data(),
               std::min(block, weights_.memory.num_bytes() - offset), cudaMemcpyHostToDevice);
  }
}

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

BenchModel::BenchModel(const ModelConfig& config, const CudaWeights& weights, KvType kv_type,
                       int32_t positions, bool is_draft)
    : layout_({.num_layers = config.num_layers,
               .num_kv_heads = config.num_kv_heads,
               .head_dim = config.head_dim,
               .k_type = kv_type,
               .v_type = kv_type,
               .page_positions = 64}) {
  const ExecutorLimits limits = {
      .max_step_tokens = 1024, .max_logits_rows = 32, .max_positions = positions};
  forward_ = CudaForward::Create(config, weights, limits, is_draft, &ledger_).value();
  const int32_t num_pages = positions / 64;
  pages_ = DeviceBuffer::Allocate(&ledger_, MemoryKind::kKvPages,
                                  int64_t{num_pages} * layout_.page_bytes())
               .value();
  cudaMemset(pages_.data(), 0x11, static_cast<size_t>(pages_.num_bytes()));
  for (int32_t page = 0; page < num_pages; ++page) table_.push_back(page);
  forward_
      ->Attach({.base = pages_.data(), .page_bytes = layout_.page_bytes(), .num_pages = num_pages},
               layout_)
      .IgnoreError();
  tokens_.assign(1024, 17);
}

void BenchModel::Run(int32_t position, int32_t rows, int32_t logits) {
  const StepSequence sequence = {.start_position = position,
                                 .token_ids = absl::MakeConstSpan(tokens_).subspan(0, rows),
                                 .num_logits = logits,
                                 .page_table = table_};
  Check(forward_->Run({&sequence, 1}));
}

void BenchModel::Draft(int32_t position, int32_t tokens, const CandidateQuery& query,
                       const DraftLimit& sampling) {
  const StepSequence sequence = {.start_position = position,
                                 .token_ids = absl::MakeConstSpan(tokens_).subspan(0, 1),
                                 .num_logits = 1,
                                 .page_table = table_,
                                 .candidates = query};
  DraftLimit limit = sampling;
  limit.max_tokens = tokens;
  limit.min_probability = -1.0f;
  std::vector<std::vector<DraftToken>> drafts;
  Check(forward_->Draft({&sequence, 1}, {&limit, 1}, &drafts));
  if (drafts.empty() || static_cast<int32_t>(drafts[0].size()) != tokens) {
    Check(absl::InternalError("the draft ended early"));
  }
}

double BenchModel::Step(int32_t position, int32_t rows, int32_t logits, int turns) {
  return MedianMilliseconds(turns, [&] { Run(position, rows, logits); });
}

double BenchModel::Batch(int32_t position, int32_t count) {
  std::vector<StepSequence> sequences(
      static_cast<size_t>(count),
      {.start_position = position,
       .token_ids = absl::MakeConstSpan(tokens_).subspan(0, 1),
       .num_logits = 1,
       .page_table = absl::MakeConstSpan(table_).first(position / 64 + 1)});
  return MedianMilliseconds(15, [&] { Check(forward_->Run(sequences)); });
}

}  // namespace tandem
