#include "common/model/weights.h"

#include <sys/mman.h>
#include <unistd.h>

#include <atomic>
#include <new>
#include <string_view>
#include <unordered_set>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "common/base/status_macros.h"

namespace tandem {
namespace {

cpu::SourceType SourceOf(DType type) { return static_cast<cpu::SourceType>(type); }

// Where a tensor of the file goes: exactly one of the two.
struct Slot {
  std::string name;
  int64_t num_rows = 1;
  int64_t num_cols = 0;
  cpu::PackedMatrix* matrix = nullptr;
  std::vector<float>* vector = nullptr;
};

// All tensors of the model, in the order of a forward pass.
std::vector<Slot> SlotsOf(const ModelConfig& config, LlamaWeights& weights) {
  const int64_t hidden = config.hidden_dim;
  const int64_t q_dim = int64_t{config.num_heads} * config.head_dim;
  const int64_t kv_dim = int64_t{config.num_kv_heads} * config.head_dim;
  const int64_t ffn = config.ffn_dim;
  std::vector<Slot> slots;
  const auto matrix = [&](const std::string& name, int64_t rows, int64_t cols,
                          cpu::PackedMatrix& to) {
    slots.push_back({.name = name, .num_rows = rows, .num_cols = cols, .matrix = &to});
  };
  const auto vector = [&](const std::string& name, std::vector<float>& to) {
    slots.push_back({.name = name, .num_cols = hidden, .vector = &to});
  };
  matrix("token_embd.weight", config.num_embedding_rows(), hidden, weights.embedding);
  weights.layers.resize(static_cast<size_t>(config.num_layers));
  for (int32_t i = 0; i < config.num_layers; ++i) {
    LayerWeights& layer = weights.layers[i];
    const std::string prefix = absl::StrCat("blk.", i, ".");
    vector(prefix + "attn_norm.weight", layer.attention_norm);
    matrix(prefix + "attn_q.weight", q_dim, hidden, layer.q);
    matrix(prefix + "attn_k.weight", kv_dim, hidden, layer.k);
    matrix(prefix + "attn_v.weight", kv_dim, hidden, layer.v);
    matrix(prefix + "attn_output.weight", hidden, q_dim, layer.attention_output);
    vector(prefix + "ffn_norm.weight", layer.ffn_norm);
    matrix(prefix + "ffn_gate.weight", ffn, hidden, layer.gate);
    matrix(prefix + "ffn_up.weight", ffn, hidden, layer.up);
    matrix(prefix + "ffn_down.weight", hidden, ffn, layer.down);
  }
  vector("output_norm.weight", weights.output_norm);
  if (!config.tied_head) {
    matrix("output.weight", config.vocab_size, hidden, weights.separate_head);
  }
  return slots;
}

std::string ShapeOf(const GgufTensor& tensor) {
  std::string shape;
  for (const int64_t dim : tensor.dims) absl::StrAppend(&shape, shape.empty() ? "" : " x ", dim);
  return shape;
}

// The tensor of a slot, checked.
absl::StatusOr<const GgufTensor*> FindChecked(const GgufFile& file, const Slot& slot) {
  const GgufTensor* tensor = file.FindTensor(slot.name);
  if (tensor == nullptr) {
    return absl::InvalidArgumentError(
        absl::StrCat(file.path(), ": tensor ", slot.name, " is missing"));
  }
  const int64_t rows = tensor->num_elements() / tensor->dims[0];
  const bool is_matrix = slot.matrix != nullptr;
  if (tensor->dims[0] != slot.num_cols || rows != slot.num_rows ||
      tensor->dims.size() > (is_matrix ? 2u : 1u)) {
    return absl::InvalidArgumentError(
        absl::StrCat(file.path(), ": ", slot.name, " is ", ShapeOf(*tensor), ", expected ",
                     slot.num_cols, is_matrix ? absl::StrCat(" x ", slot.num_rows) : ""));
  }
  if (!cpu::CanPack(SourceOf(tensor->dtype), slot.num_cols) ||
      (is_matrix && slot.num_cols % 32 != 0)) {
    return absl::InvalidArgumentError(
        absl::StrFormat("%s: %s is %d wide, which does not fit blocks of %s", file.path(),
                        slot.name, slot.num_cols, DTypeName(tensor->dtype)));
  }
  return tensor;
}

// Biases and adapters change what a model computes: leaving them out would be silent.
absl::Status CheckNothingIsLeftOut(const GgufFile& file, const std::vector<Slot>& slots) {
  std::unordered_set<std::string_view> known = {"rope_freqs.weight"};
  for (const Slot& slot : slots) known.insert(slot.name);
  for (const GgufTensor& tensor : file.tensors()) {
    if (tensor.name.ends_with(".bias")) {
      return absl::InvalidArgumentError(
          absl::StrCat(file.path(), ": tensor ", std::string(tensor.name),
                       " is a bias; Tandem runs llama models without biases"));
    }
    if (!known.contains(tensor.name)) {
      return absl::InvalidArgumentError(
          absl::StrCat(file.path(), ": tensor ", std::string(tensor.name),
                       " is not part of a llama model that Tandem runs"));
    }
  }
  return absl::OkStatus();
}

// Lets the system drop the pages that only this tensor touched.
void ReleasePages(absl::Span<const uint8_t> data) {
  const auto page = static_cast<uintptr_t>(sysconf(_SC_PAGESIZE));
  const uintptr_t begin = (reinterpret_cast<uintptr_t>(data.data()) + page - 1) / page * page;
  const uintptr_t end = reinterpret_cast<uintptr_t>(data.data() + data.size()) / page * page;
  if (end > begin) madvise(reinterpret_cast<void*>(begin), end - begin, MADV_DONTNEED);
}

void LoadSlot(const Slot& slot, const GgufTensor& tensor, WeightPrecision precision) {
  if (slot.matrix != nullptr && precision == WeightPrecision::kFloat) {
    std::vector<float> values(static_cast<size_t>(tensor.num_elements()));
    cpu::Dequantize(SourceOf(tensor.dtype), tensor.data.data(), tensor.num_elements(),
                    values.data());
    *slot.matrix =
        cpu::PackMatrix(cpu::SourceType::kF32, reinterpret_cast<const uint8_t*>(values.data()),
                        slot.num_rows, slot.num_cols);
  } else if (slot.matrix != nullptr) {
    *slot.matrix =
        cpu::PackMatrix(SourceOf(tensor.dtype), tensor.data.data(), slot.num_rows, slot.num_cols);
  } else {
    slot.vector->resize(static_cast<size_t>(slot.num_cols));
    cpu::Dequantize(SourceOf(tensor.dtype), tensor.data.data(), slot.num_cols, slot.vector->data());
  }
  ReleasePages(tensor.data);
}

}  // namespace

const char* PackedFormatName(cpu::PackedFormat format) {
  switch (format) {
    case cpu::PackedFormat::kQ4Symmetric:
      return "4-bit symmetric";
    case cpu::PackedFormat::kQ4Affine:
      return "4-bit affine";
    case cpu::PackedFormat::kQ4Codebook:
      return "4-bit codebook";
    case cpu::PackedFormat::kQ8:
      return "8-bit";
    case cpu::PackedFormat::kF16:
      return "f16";
    case cpu::PackedFormat::kBF16:
      return "bf16";
    case cpu::PackedFormat::kF32:
      return "f32";
  }
  return "?";
}

absl::StatusOr<std::vector<TensorPlan>> PlanWeights(const GgufFile& file,
                                                    const ModelConfig& config) {
  LlamaWeights weights;
  const std::vector<Slot> slots = SlotsOf(config, weights);
  RETURN_IF_ERROR(CheckNothingIsLeftOut(file, slots));
  std::vector<TensorPlan> plans;
  for (const Slot& slot : slots) {
    ASSIGN_OR_RETURN(const GgufTensor* tensor, FindChecked(file, slot));
    TensorPlan plan = {.name = slot.name,
                       .stored = tensor->dtype,
                       .num_rows = slot.num_rows,
                       .num_cols = slot.num_cols,
                       .stored_bytes = static_cast<int64_t>(tensor->data.size())};
    if (slot.matrix != nullptr) {
      plan.packed = cpu::PackedFormatOf(SourceOf(tensor->dtype));
      plan.lossless = tensor->dtype != DType::kNF4 && tensor->dtype != DType::kQ4_K &&
                      tensor->dtype != DType::kQ5_K && tensor->dtype != DType::kQ6_K;
      plan.packed_bytes =
          static_cast<int64_t>(cpu::PackedBytes(plan.packed, slot.num_rows, slot.num_cols));
    } else {
      plan.packed_bytes = slot.num_cols * static_cast<int64_t>(sizeof(float));
    }
    plans.push_back(std::move(plan));
  }
  return plans;
}

absl::StatusOr<LlamaWeights> LoadWeights(const GgufFile& file, const ModelConfig& config,
                                         cpu::ThreadPool& pool,
                                         const std::function<void(int64_t, int64_t)>& progress,
                                         WeightPrecision precision) {
  LlamaWeights weights;
  const std::vector<Slot> slots = SlotsOf(config, weights);
  RETURN_IF_ERROR(CheckNothingIsLeftOut(file, slots));
  std::vector<const GgufTensor*> tensors;
  int64_t total_bytes = 0;
  for (const Slot& slot : slots) {
    ASSIGN_OR_RETURN(const GgufTensor* tensor, FindChecked(file, slot));
    total_bytes += static_cast<int64_t>(tensor->data.size());
    tensors.push_back(tensor);
  }
  std::atomic<int64_t> done_bytes = 0;
  std::atomic<bool> out_of_memory = false;
  pool.Run(static_cast<int32_t>(slots.size()), [&](int32_t i, int32_t thread) {
    if (out_of_memory) return;
    try {
      LoadSlot(slots[i], *tensors[i], precision);
    } catch (const std::bad_alloc&) {  // must not leave a thread of the pool
      out_of_memory = true;
    }
    done_bytes += static_cast<int64_t>(tensors[i]->data.size());
    if (thread == 0 && progress) progress(done_bytes, total_bytes);
  });
  if (out_of_memory) {
    return absl::ResourceExhaustedError(absl::StrFormat(
        "%s: memory ran out while its %d bytes of weights were packed: free memory, or take a "
        "smaller model",
        file.path(), total_bytes));
  }
  if (progress) progress(total_bytes, total_bytes);
  for (const Slot& slot : slots) {
    weights.num_bytes += slot.matrix != nullptr
                             ? static_cast<int64_t>(slot.matrix->num_bytes)
                             : slot.num_cols * static_cast<int64_t>(sizeof(float));
  }
  return weights;
}

}  // namespace tandem
