// From a command line to a model that runs.
#pragma once

#include <functional>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "common/model/executor.h"
#include "common/worker/worker_device.h"
#include "common/worker/worker_options.h"

namespace tandem::worker {

struct LoadedModel {
  std::unique_ptr<WorkerDevice> device;  // outlives the executor; null for the tests' fakes
  std::unique_ptr<Executor> executor;
  std::string quantization;  // the type that most bytes of the file have
  std::string fingerprint;   // ModelFingerprint of the file
  absl::Duration map;        // from the start of the process: the file mapped, checked and known
  absl::Duration upload;     // from there: the weights where they are used
};

// Loads options.model onto options' device, telling its progress in bytes. The file is no longer
// mapped when it returns. RESOURCE_EXHAUSTED when memory is short, OUT_OF_RANGE for options
// that do not fit the model; anything else is the file's fault. A file that is shortened meanwhile
// ends the process (ModelFileGuard).
absl::StatusOr<LoadedModel> LoadModel(const WorkerOptions& options,
                                      const std::function<void(int64_t, int64_t)>& on_progress);

}  // namespace tandem::worker
