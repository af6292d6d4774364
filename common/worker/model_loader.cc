#include "common/worker/model_loader.h"

#include <malloc.h>

#include <algorithm>
#include <map>
#include <new>

#include "absl/strings/str_cat.h"
#include "common/base/status_macros.h"
#include "common/gguf/fingerprint.h"
#include "common/gguf/gguf.h"
#include "common/model/config.h"
#include "common/safetensors/checkpoint.h"
#include "common/worker/worker_process.h"

namespace tandem::worker {
namespace {

// Sequences that may want logits of a verify of 7 drafts in one pass; more take another.
constexpr int32_t kMaxLogitsRows = 128;

std::string MostlyUsedType(const GgufFile& file) {
  std::map<DType, size_t> bytes;
  for (const GgufTensor& tensor : file.tensors()) bytes[tensor.dtype] += tensor.data.size();
  const auto most = std::max_element(
      bytes.begin(), bytes.end(), [](const auto& a, const auto& b) { return a.second < b.second; });
  return most == bytes.end() ? "none" : DTypeName(most->first);
}

absl::StatusOr<LoadedModel> Load(const WorkerOptions& options,
                                 const std::function<void(int64_t, int64_t)>& on_progress) {
  ASSIGN_OR_RETURN(const std::unique_ptr<GgufFile> file, OpenModel(options.model));
  ASSIGN_OR_RETURN(const ModelConfig config, ModelConfigFromGguf(*file));
  const bool is_target = options.role == Role::kTarget;
  // A draft that was trained for less just does not draft beyond it.
  if (is_target && options.max_positions > config.context_length) {
    return absl::OutOfRangeError(absl::StrCat("--ctx ", options.max_positions, " is more than ",
                                              config.name, " was trained for: at most ",
                                              config.context_length));
  }
  const int32_t wanted = options.max_positions > 0 ? options.max_positions : kDefaultMaxPositions;
  const int32_t max_positions = std::min(config.context_length, wanted);
  const ExecutorLimits limits = {
      .max_step_tokens = options.max_step_tokens,
      .max_logits_rows = std::min(kMaxLogitsRows, options.max_step_tokens),
      .max_positions = max_positions};
  LoadedModel model;
  model.quantization = MostlyUsedType(*file);
  model.fingerprint = ModelFingerprint(*file);
  model.map = ProcessAge();
  ASSIGN_OR_RETURN(model.device, OpenWorkerDevice(options));
  ASSIGN_OR_RETURN(model.executor, model.device->Load(*file, limits, options, on_progress));
  model.upload = ProcessAge() - model.map;
  return model;
}

}  // namespace

absl::StatusOr<LoadedModel> LoadModel(const WorkerOptions& options,
                                      const std::function<void(int64_t, int64_t)>& on_progress) {
  const ModelFileGuard guard;
  try {
    absl::StatusOr<LoadedModel> model = Load(options, on_progress);
    malloc_trim(0);  // what reading the vocabulary took
    return model;
  } catch (const std::bad_alloc&) {
    return absl::ResourceExhaustedError(
        absl::StrCat("no memory for the weights of '", options.model,
                     "': ", AvailableMemoryBytes() >> 20, " MiB are available"));
  }
}

}  // namespace tandem::worker
