#include "cli/eval.h"

#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <memory>
#include <system_error>
#include <thread>
#include <vector>

#include "absl/strings/str_cat.h"
#include "cli/exit_codes.h"
#include "common/gguf/gguf.h"
#include "common/model/cpu_executor.h"
#include "common/model/perplexity.h"
#include "common/safetensors/checkpoint.h"
#include "common/tokenizer/tokenizer.h"

namespace tandem {
namespace {

// Rows of a pass; a window is run in chunks of this many.
constexpr int32_t kChunkTokens = 256;

KvType KvTypeOf(const std::string& name) {
  if (name == "f16") return KvType::kF16;
  return name == "q8" ? KvType::k8 : KvType::k4;
}

// Redrawn in place; nothing where standard error is not a terminal.
void ShowProgress(int32_t done, int32_t total) {
  if (isatty(STDERR_FILENO) != 1) return;
  std::fprintf(stderr, "\reval   window %d/%d%s", done, total, done == total ? "\n" : "");
}

}  // namespace

int RunPerplexity(const PerplexityCommand& options) {
  absl::StatusOr<std::unique_ptr<GgufFile>> file = OpenModel(options.model);
  if (!file.ok()) return Fail(kExitModelFile, file.status());
  absl::StatusOr<std::unique_ptr<Tokenizer>> tokenizer = Tokenizer::FromGguf(**file);
  if (!tokenizer.ok()) return Fail(kExitModelFile, tokenizer.status());
  std::ifstream stream(options.file);
  std::error_code error;
  // Reading a folder throws.
  if (!stream || std::filesystem::is_directory(options.file, error)) {
    return Fail(kExitUsage, absl::NotFoundError(absl::StrCat("cannot read ", options.file)));
  }
  const std::string text(std::istreambuf_iterator<char>(stream), {});
  absl::StatusOr<std::vector<int32_t>> ids =
      (*tokenizer)->Encode(text, {.add_bos = (*tokenizer)->add_bos()});
  if (!ids.ok()) return Fail(kExitFailure, ids.status());

  const auto cores = static_cast<int32_t>(std::max(1u, std::thread::hardware_concurrency()));
  const KvType kv = KvTypeOf(options.kv_type);
  absl::StatusOr<std::unique_ptr<Executor>> executor =
      CreateCpuExecutor(**file, {.limits = {.max_step_tokens = kChunkTokens,
                                            .max_logits_rows = kChunkTokens,
                                            .max_positions = options.context_tokens},
                                 .num_threads = options.threads > 0 ? options.threads : cores,
                                 .k_type = kv,
                                 .v_type = kv,
                                 .page_positions = 32});
  if (!executor.ok()) return Fail(kExitModelFile, executor.status());
  const int32_t bos = (*tokenizer)->add_bos() ? (*tokenizer)->bos_id() : -1;
  const absl::StatusOr<PerplexityResult> result = MeasurePerplexity(
      **executor, *ids, {.window_tokens = options.context_tokens, .bos_id = bos}, ShowProgress);
  if (!result.ok()) return Fail(kExitUsage, result.status());
  std::printf("perplexity %.4f +- %.4f  (%lld tokens scored in %d windows of %d, %s KV)\n",
              result->perplexity, result->standard_error,
              static_cast<long long>(result->num_scored), result->num_windows,
              options.context_tokens, options.kv_type.c_str());
  return kExitOk;
}

}  // namespace tandem
