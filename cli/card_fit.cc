#include "cli/card_fit.h"

#include <algorithm>
#include <cstdint>
#include <memory>
#include <optional>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "cli/start_plan.h"
#include "common/base/host_memory.h"
#include "common/base/status_macros.h"
#include "common/kernels/kv_layout.h"
#include "common/model/cpu_executor.h"
#include "common/model/cuda_format.h"
#include "common/safetensors/checkpoint.h"

namespace tandem {
namespace {

// Cards as they are sold, in GB, which are GiB on the card. A screen and the driver have the rest.
constexpr int kCardSizes[] = {6, 8, 10, 12, 16, 24};
constexpr double kFreeShare = 0.92;
constexpr double kBitsOfQ4 = 4.5;  // Q4_0: 32 codes and a scale
constexpr int64_t kMinTokens = 512;
constexpr int64_t kRoundTo = 100;
constexpr int64_t kPagesOfRounding = 2;

struct Model {
  ModelConfig config;
  int64_t weights_bytes = 0;
};

struct Shape {
  const char* name;
  int32_t num_layers, hidden_dim, ffn_dim, num_heads, num_kv_heads, head_dim, vocab_size;
};

constexpr Shape kLlama8B = {"Llama-3.1-8B", 32, 4096, 14336, 32, 8, 128, 128256};
constexpr Shape kLlama3B = {"Llama-3.2-3B", 28, 3072, 8192, 24, 8, 128, 128256};
constexpr Shape kLlama1B = {"Llama-3.2-1B", 16, 2048, 8192, 32, 8, 64, 128256};
constexpr Shape kLlama13B = {"Llama-2-13B", 40, 5120, 13824, 40, 40, 128, 32000};
constexpr Shape kLlama7B = {"Llama-2-7B", 32, 4096, 11008, 32, 32, 128, 32000};
constexpr Shape kTinyLlama = {"TinyLlama-1.1B", 22, 2048, 5632, 32, 4, 64, 32000};
constexpr Shape kSmol2B = {"SmolLM2-1.7B", 24, 2048, 8192, 32, 32, 64, 49152};
constexpr Shape kSmol135M = {"SmolLM2-135M", 30, 576, 1536, 9, 3, 64, 49152};

// Pairs of one vocabulary.
constexpr std::pair<const Shape*, const Shape*> kPairs[] = {
    {&kLlama8B, &kLlama1B}, {&kLlama8B, nullptr},      {&kLlama3B, &kLlama1B},
    {&kLlama1B, nullptr},   {&kLlama13B, &kTinyLlama}, {&kLlama7B, &kTinyLlama},
    {&kTinyLlama, nullptr}, {&kSmol2B, &kSmol135M}};

Model OfShape(const Shape& shape) {
  Model model;
  model.config.name = shape.name;
  model.config.num_layers = shape.num_layers;
  model.config.hidden_dim = shape.hidden_dim;
  model.config.ffn_dim = shape.ffn_dim;
  model.config.num_heads = shape.num_heads;
  model.config.num_kv_heads = shape.num_kv_heads;
  model.config.head_dim = shape.head_dim;
  model.config.vocab_size = shape.vocab_size;
  const int64_t hidden = shape.hidden_dim;
  const int64_t of_heads =
      2 * hidden * shape.head_dim * (shape.num_heads + int64_t{shape.num_kv_heads});
  const int64_t of_layers = shape.num_layers * (of_heads + 3 * hidden * shape.ffn_dim);
  // An embedding that is not the head too stays in host memory.
  const int64_t of_head = hidden * shape.vocab_size;
  model.weights_bytes = static_cast<int64_t>((of_layers + of_head) * kBitsOfQ4 / 8);
  return model;
}

absl::StatusOr<Model> OfFile(const std::string& path) {
  ASSIGN_OR_RETURN(const std::unique_ptr<GgufFile> file, OpenModel(path));
  Model model;
  ASSIGN_OR_RETURN(model.config, ModelConfigFromGguf(*file));
  ASSIGN_OR_RETURN(model.weights_bytes, CudaWeightBytes(*file, model.config, {}));
  return model;
}

absl::StatusOr<int32_t> PagePositions(const Model& target, const std::optional<Model>& draft) {
  return PlanPagePositions(target.config, KvType::k4, draft.has_value() ? &draft->config : nullptr,
                           KvType::k8, /*is_cpu=*/false);
}

// A page of the pool, as `serve` plans it for the pair. Requires that PagePositions has one.
KvLayout PageOf(const Model& target, const std::optional<Model>& draft) {
  return KvLayoutFor(target.config, KvType::k4, KvType::k4, *PagePositions(target, draft));
}

// Bytes of KV of a token, of both models.
double TokenBytes(const Model& target, const std::optional<Model>& draft) {
  const KvLayout page = PageOf(target, draft);
  const auto page_bytes = static_cast<double>(page.page_bytes());
  if (!draft.has_value()) return page_bytes / page.page_positions;
  return page_bytes / page.page_positions +
         page_bytes / static_cast<double>(DraftPositionsOfPage(page.page_bytes(), draft->config,
                                                               KvType::k8, /*is_cpu=*/false));
}

// That there is room for beside weights, workspace and contexts; 0: too few to be of use.
int64_t TokensThatFit(const Model& target, const std::optional<Model>& draft, int card_size) {
  auto room = static_cast<int64_t>(card_size * kGiB * kFreeShare);
  for (const Model* model : {&target, draft.has_value() ? &*draft : nullptr}) {
    if (model == nullptr) continue;
    room -= model->weights_bytes + EstimateWorkspace(model->config) + kUnknownContextBytes;
  }
  room -= kPagesOfRounding * PageOf(target, draft).page_bytes();
  const auto tokens = static_cast<int64_t>(static_cast<double>(std::max<int64_t>(room, 0)) /
                                           TokenBytes(target, draft)) /
                      kRoundTo * kRoundTo;
  return tokens < kMinTokens ? 0 : tokens;
}

std::string Row(const Model& target, const std::optional<Model>& draft) {
  int64_t weights = target.weights_bytes;
  std::string row = absl::StrCat("| ", target.config.name);
  if (draft.has_value()) {
    weights += draft->weights_bytes;
    absl::StrAppend(&row, " + ", draft->config.name);
  }
  absl::StrAppendFormat(&row, " | %.2f GiB | %.1f KiB |", weights / kGiB,
                        TokenBytes(target, draft) / 1024.0);
  for (const int size : kCardSizes) {
    const int64_t tokens = TokensThatFit(target, draft, size);
    absl::StrAppend(&row, " ", tokens == 0 ? "-" : absl::StrCat(tokens), " |");
  }
  return row + "\n";
}

std::string Head() {
  std::string names = "| models | weights | KV of a token |";
  std::string rule = "|---|---|---|";
  for (const int size : kCardSizes) {
    absl::StrAppend(&names, " ", size, " GB |");
    rule += "---|";
  }
  return absl::StrCat(names, "\n", rule, "\n");
}

}  // namespace

absl::StatusOr<std::string> CardFitTable(const std::string& target, const std::string& draft) {
  std::string table = Head();
  if (!target.empty()) {
    ASSIGN_OR_RETURN(const Model large, OfFile(target));
    std::optional<Model> small;
    if (!draft.empty()) {
      ASSIGN_OR_RETURN(small, OfFile(draft));
    }
    RETURN_IF_ERROR(PagePositions(large, small).status());
    return table + Row(large, small);
  }
  for (const auto& [large, small] : kPairs) {
    table += Row(OfShape(*large),
                 small == nullptr ? std::nullopt : std::optional<Model>(OfShape(*small)));
  }
  return table;
}

}  // namespace tandem
