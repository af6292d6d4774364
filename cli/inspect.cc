#include "cli/inspect.h"

#include <cstdio>
#include <map>
#include <memory>

#include "cli/exit_codes.h"
#include "common/base/host_memory.h"
#include "common/base/status_macros.h"
#include "common/gguf/gguf.h"
#include "common/model/config.h"
#include "common/model/cpu_executor.h"
#include "common/model/weights.h"
#include "common/safetensors/checkpoint.h"
#include "common/tokenizer/tokenizer.h"

namespace tandem {
namespace {

void PrintConfig(const ModelConfig& config) {
  std::printf("model        %s\n", config.name.c_str());
  std::printf("architecture llama, %d layers, hidden %d, ffn %d\n", config.num_layers,
              config.hidden_dim, config.ffn_dim);
  std::printf("heads        %d query, %d key/value, %d wide; RoPE over %d, theta %g\n",
              config.num_heads, config.num_kv_heads, config.head_dim, config.rope_dim,
              static_cast<double>(config.rope_theta));
  if (!config.kept_ids.empty()) {
    std::printf("trimmed      %d ids are drafted, others only read\n",
                static_cast<int>(config.kept_ids.size()));
  }
  std::printf("vocabulary   %d tokens, head %s\n", config.vocab_size,
              config.tied_head ? "tied to the embedding" : "separate");
  std::printf("context      %d tokens\n", config.context_length);
  std::printf("parameters   %.1f million\n", static_cast<double>(config.num_parameters) * 1e-6);
  for (const auto& [name, type] :
       {std::pair{"f16", KvType::kF16}, {"q8", KvType::k8}, {"q4", KvType::k4}}) {
    std::printf("KV %-9s %.1f KiB a token\n", name,
                static_cast<double>(KvLayoutFor(config, type, type, 8).position_bytes()) / 1024);
  }
}

void PrintTokenizer(const GgufFile& file) {
  const absl::StatusOr<std::unique_ptr<Tokenizer>> tokenizer = Tokenizer::FromGguf(file);
  if (!tokenizer.ok()) {
    std::printf("tokenizer    %s\n", std::string(tokenizer.status().message()).c_str());
    return;
  }
  std::printf("tokenizer    %d tokens, bos %d, eos %d\n", (*tokenizer)->vocab_size(),
              (*tokenizer)->bos_id(), (*tokenizer)->eos_id());
  std::printf("chat         %s\n", file.FindValue("tokenizer.chat_template") != nullptr
                                       ? "has a template"
                                       : "no template");
}

void PrintWeights(const std::vector<TensorPlan>& tensors) {
  std::printf("\n%-30s %-18s %-8s %-16s %10s %10s\n", "tensor", "shape", "stored", "in memory",
              "KiB", "KiB");
  int64_t stored = 0, packed = 0, lossy = 0;
  for (const TensorPlan& tensor : tensors) {
    const std::string shape =
        std::to_string(tensor.num_rows) + " x " + std::to_string(tensor.num_cols);
    std::printf("%-30s %-18s %-8s %-16s %10.1f %10.1f%s\n", tensor.name.c_str(), shape.c_str(),
                DTypeName(tensor.stored), PackedFormatName(tensor.packed),
                static_cast<double>(tensor.stored_bytes) / 1024,
                static_cast<double>(tensor.packed_bytes) / 1024,
                tensor.lossless ? "" : "  rounded");
    stored += tensor.stored_bytes;
    packed += tensor.packed_bytes;
    lossy += tensor.lossless ? 0 : 1;
  }
  std::printf("\nweights      %.1f MiB in the file, %.1f MiB in memory; %s\n", stored / kMiB,
              packed / kMiB,
              lossy == 0 ? "all kept without loss"
                         : (std::to_string(lossy) + " tensors are rounded").c_str());
}

absl::Status Inspect(const std::string& path) {
  ASSIGN_OR_RETURN(const std::unique_ptr<GgufFile> file, OpenModel(path));
  std::printf("file         %s, %.1f MiB, %d tensors, %d metadata values\n", path.c_str(),
              static_cast<double>(file->file_bytes()) / kMiB,
              static_cast<int>(file->tensors().size()), static_cast<int>(file->metadata().size()));
  PrintTokenizer(*file);
  if (file->tensors().empty()) {
    std::printf("model        none: the file holds a vocabulary only\n");
    return absl::OkStatus();
  }
  ASSIGN_OR_RETURN(const ModelConfig config, ModelConfigFromGguf(*file));
  PrintConfig(config);
  ASSIGN_OR_RETURN(const std::vector<TensorPlan> tensors, PlanWeights(*file, config));
  PrintWeights(tensors);
  return absl::OkStatus();
}

}  // namespace

int RunInspect(const std::string& path) {
  const absl::Status status = Inspect(path);
  return status.ok() ? kExitOk : Fail(kExitModelFile, status);
}

}  // namespace tandem
