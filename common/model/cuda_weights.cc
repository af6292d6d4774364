#include "common/model/cuda_weights.h"

#include <cuda_runtime_api.h>

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/base/status_macros.h"
#include "common/device/cuda_status.h"
#include "common/kernels/cpu/thread_pool.h"
#include "common/model/cuda_matrix_job.h"
#include "common/model/weights.h"

namespace tandem {
namespace {

using cuda::DeviceMatrix;
using cuda::MatrixFormat;

constexpr int64_t kAlignment = 256;

cpu::SourceType SourceOf(DType type) { return static_cast<cpu::SourceType>(type); }

struct VectorJob {
  const float** target = nullptr;
  std::vector<float> values;
  int64_t offset = 0;
};

// What is to be uploaded, in order, and how many bytes it takes.
class Plan {
 public:
  Plan(const GgufFile& file, const ModelConfig& config, const CudaWeightsOptions& options)
      : file_(file), config_(config), options_(options) {}

  void AddAll(CudaWeights& weights);
  absl::Status Upload(CudaWeights& weights);

 private:
  const GgufTensor* Tensor(const std::string& name) { return file_.FindTensor(name); }
  MatrixFormat FormatOf(const GgufTensor* tensor) const {
    return CudaFormatOf(tensor->dtype, options_.choices.quantize_to_nf4);
  }
  void AddMatrix(std::vector<const GgufTensor*> tensors, int64_t interleave, DeviceMatrix* target);
  void AddVector(std::vector<float> values, const float** target) {
    vectors_.push_back({.target = target, .values = std::move(values)});
  }
  void AddNorm(const std::string& name, const float** target);
  void AddLayer(int32_t index, CudaLayerWeights& layer);
  bool IsOnDevice(const MatrixJob& job) const {
    return options_.choices.IsOnDevice(job.tensors[0]->name, config_.tied_head);
  }
  int64_t LayOut();
  static absl::Status Place(const MatrixJob& job, uint8_t* memory, cpu::ThreadPool& pool);

  const GgufFile& file_;
  const ModelConfig& config_;
  const CudaWeightsOptions& options_;
  std::vector<MatrixJob> matrices_;
  std::vector<VectorJob> vectors_;
};

void Plan::AddMatrix(std::vector<const GgufTensor*> tensors, int64_t interleave,
                     DeviceMatrix* target) {
  MatrixJob job = {.target = target, .tensors = std::move(tensors), .interleave = interleave};
  job.format = FormatOf(job.tensors[0]);
  job.num_cols = job.tensors[0]->dims[0];
  for (const GgufTensor* tensor : job.tensors) {
    job.num_rows += tensor->num_elements() / tensor->dims[0];
    // Tensors of different types meet at 8 bits.
    if (tensor->dtype != job.tensors[0]->dtype) job.format = MatrixFormat::kCode8;
  }
  matrices_.push_back(std::move(job));
}

void Plan::AddNorm(const std::string& name, const float** target) {
  const GgufTensor* tensor = Tensor(name);
  std::vector<float> values(static_cast<size_t>(config_.hidden_dim));
  cpu::Dequantize(SourceOf(tensor->dtype), tensor->data.data(), config_.hidden_dim, values.data());
  AddVector(std::move(values), target);
}

void Plan::AddLayer(int32_t index, CudaLayerWeights& layer) {
  const std::string prefix = absl::StrCat("blk.", index, ".");
  AddNorm(prefix + "attn_norm.weight", &layer.attention_norm);
  AddNorm(prefix + "ffn_norm.weight", &layer.ffn_norm);
  const std::vector<const GgufTensor*> qkv = {Tensor(prefix + "attn_q.weight"),
                                              Tensor(prefix + "attn_k.weight"),
                                              Tensor(prefix + "attn_v.weight")};
  const bool is_one_type = qkv[0]->dtype == qkv[1]->dtype && qkv[0]->dtype == qkv[2]->dtype;
  layer.qkv.resize(is_one_type ? 1 : 3);
  if (is_one_type) {
    AddMatrix(qkv, 0, &layer.qkv[0].matrix);
  } else {
    int64_t first_col = 0;
    for (size_t i = 0; i < 3; ++i) {
      layer.qkv[i].first_col = static_cast<int32_t>(first_col);
      AddMatrix({qkv[i]}, 0, &layer.qkv[i].matrix);
      first_col += qkv[i]->num_elements() / qkv[i]->dims[0];
    }
  }
  AddMatrix({Tensor(prefix + "attn_output.weight")}, 0, &layer.attention_output);
  AddMatrix({Tensor(prefix + "ffn_gate.weight"), Tensor(prefix + "ffn_up.weight")}, 32,
            &layer.gate_up);
  AddMatrix({Tensor(prefix + "ffn_down.weight")}, 0, &layer.down);
}

void Plan::AddAll(CudaWeights& weights) {
  AddMatrix({Tensor("token_embd.weight")}, 0, &weights.embedding);
  if (!config_.tied_head) AddMatrix({Tensor("output.weight")}, 0, &weights.head);
  AddNorm("output_norm.weight", &weights.output_norm);
  AddVector(config_.rope_inv_freq, &weights.rope_inv_freq);
  weights.layers.resize(static_cast<size_t>(config_.num_layers));
  for (int32_t i = 0; i < config_.num_layers; ++i) AddLayer(i, weights.layers[i]);
}

// Packs the matrix to `memory`, of the device or of the host.
absl::Status Plan::Place(const MatrixJob& job, uint8_t* memory, cpu::ThreadPool& pool) {
  const std::vector<uint8_t> packed = job.Pack(pool);
  RETURN_IF_ERROR(CudaStatus(cudaMemcpy(memory, packed.data(), packed.size(), cudaMemcpyDefault),
                             "uploading weights"));
  DeviceMatrix& matrix = *job.target;
  matrix = {.format = job.format,
            .num_rows = static_cast<int32_t>(job.num_rows),
            .num_cols = static_cast<int32_t>(job.num_cols),
            .num_chunks = static_cast<int32_t>(cuda::PaddedCols(job.num_cols) / cuda::kChunkCols),
            .chunks = memory};
  if (job.format == MatrixFormat::kNf4) {
    matrix.row_scales = reinterpret_cast<const float*>(memory + job.chunk_bytes());
  }
  job.SetCodebook(matrix);
  return absl::OkStatus();
}

// Offsets of all parts; the bytes of the device's.
int64_t Plan::LayOut() {
  int64_t bytes = 0;
  const auto reserve = [&](int64_t count) {
    const int64_t offset = bytes;
    bytes += (count + kAlignment - 1) / kAlignment * kAlignment;
    return offset;
  };
  for (MatrixJob& job : matrices_) {
    if (IsOnDevice(job)) job.offset = reserve(job.packed_bytes());
  }
  for (VectorJob& job : vectors_) {
    job.offset = reserve(static_cast<int64_t>(job.values.size() * sizeof(float)));
  }
  return bytes;
}

absl::Status Plan::Upload(CudaWeights& weights) {
  ASSIGN_OR_RETURN(weights.memory,
                   DeviceBuffer::Allocate(options_.ledger, MemoryKind::kWeights, LayOut()));
  uint8_t* const memory = weights.memory.data();
  int64_t total_bytes = 0;
  for (const MatrixJob& job : matrices_) total_bytes += job.stored_bytes();
  cpu::ThreadPool pool(options_.num_threads);
  int64_t done_bytes = 0;
  for (const MatrixJob& job : matrices_) {
    if (IsOnDevice(job)) {
      RETURN_IF_ERROR(Place(job, memory + job.offset, pool));
    } else {  // the embedding, the only one
      ASSIGN_OR_RETURN(weights.host_memory,
                       PinnedBuffer::Allocate(job.packed_bytes(), "the embedding",
                                              "--embedding device keeps it on the GPU"));
      RETURN_IF_ERROR(Place(job, weights.host_memory.data(), pool));
    }
    done_bytes += job.stored_bytes();
    if (options_.progress) options_.progress(done_bytes, total_bytes);
  }
  for (const VectorJob& job : vectors_) {
    RETURN_IF_ERROR(
        CudaStatus(cudaMemcpy(memory + job.offset, job.values.data(),
                              job.values.size() * sizeof(float), cudaMemcpyHostToDevice),
                   "uploading weights"));
    *job.target = reinterpret_cast<const float*>(memory + job.offset);
  }
  if (config_.tied_head) weights.head = weights.embedding;
  return absl::OkStatus();
}

absl::Status CheckShape(const ModelConfig& config) {
  const bool has_head_dim = config.head_dim == 64 || config.head_dim == 128;
  if (has_head_dim && config.hidden_dim % 32 == 0 && config.ffn_dim % 32 == 0 &&
      config.num_heads / config.num_kv_heads <= 32) {
    return absl::OkStatus();
  }
  return absl::InvalidArgumentError(
      absl::StrCat(config.name,
                   ": the CUDA backend takes heads of 64 or 128, at most 32 of them to a KV head, "
                   "and widths in multiples of 32; this model has heads of ",
                   config.head_dim, ", ", config.num_heads, " to ", config.num_kv_heads,
                   ", hidden ", config.hidden_dim, ", ffn ", config.ffn_dim, ": use --device cpu"));
}

}  // namespace

absl::StatusOr<CudaWeights> LoadCudaWeights(const GgufFile& file, const ModelConfig& config,
                                            const CudaWeightsOptions& options) {
  RETURN_IF_ERROR(PlanWeights(file, config).status());  // all tensors are there, and fit
  RETURN_IF_ERROR(CheckShape(config));
  CudaWeights weights;
  Plan plan(file, config, options);
  plan.AddAll(weights);
  RETURN_IF_ERROR(plan.Upload(weights));
  return weights;
}

}  // namespace tandem
