// All that a running draft holds.
#pragma once

#include <memory>

#include "common/worker/model_loader.h"
#include "common/worker/worker_options.h"
#include "services/draft/draft_engine.h"
#include "services/draft/draft_info.h"

namespace tandem::draft {

// The model and the engine on it; the pool comes with AttachPool.
class DraftWorker {
 public:
  DraftWorker(const worker::WorkerOptions& options, worker::LoadedModel model);

  DraftEngine* engine() { return &engine_; }
  const DraftInfo& info() const { return info_; }

 private:
  std::unique_ptr<worker::WorkerDevice> device_;  // null for the tests' fakes
  std::unique_ptr<Executor> executor_;
  DraftEngine engine_;
  DraftInfo info_;
};

}  // namespace tandem::draft
