// LoadModel without a model: workers that start at once and cost nothing, for the tests of
// what is around them. The GGUF gives the size of the vocabulary only. TANDEM_FAKE_PASS_MS makes
// a pass take so long, as on a device, and answer greedy requests only.
#include <cstdlib>

#include "absl/strings/numbers.h"
#include "common/base/status_macros.h"
#include "common/gguf/fingerprint.h"
#include "common/gguf/gguf.h"
#include "common/safetensors/checkpoint.h"
#include "common/worker/fake_executor.h"
#include "common/worker/model_loader.h"

namespace tandem::worker {
namespace {

absl::Duration PassTime() {
  const char* text = std::getenv("TANDEM_FAKE_PASS_MS");
  double milliseconds = 0.0;
  if (text == nullptr || !absl::SimpleAtod(text, &milliseconds)) return absl::ZeroDuration();
  return absl::Milliseconds(milliseconds);
}

}  // namespace

absl::StatusOr<LoadedModel> LoadModel(const WorkerOptions& options,
                                      const std::function<void(int64_t, int64_t)>& on_progress) {
  ASSIGN_OR_RETURN(const std::unique_ptr<GgufFile> file, OpenModel(options.model));
  ASSIGN_OR_RETURN(const auto tokens, file->GetStrings("tokenizer.ggml.tokens"));
  const bool is_target = options.role == Role::kTarget;
  on_progress(file->file_bytes(), file->file_bytes());
  const int32_t max_positions =
      options.max_positions > 0 ? options.max_positions : kDefaultMaxPositions;
  FakeExecutorOptions fake = {.vocab_size = static_cast<int32_t>(tokens.size()),
                              .page_positions = is_target ? options.page_positions : 0,
                              .limits = {.max_step_tokens = options.max_step_tokens,
                                         .max_logits_rows = 128,
                                         .max_positions = max_positions},
                              .disagreement = is_target ? 0.0f : 0.3f,
                              .pass_time = PassTime()};
  LoadedModel model;
  model.executor = std::make_unique<FakeExecutor>(fake);
  model.quantization = "none";
  model.fingerprint = ModelFingerprint(*file);
  return model;
}

}  // namespace tandem::worker
