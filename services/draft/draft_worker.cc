#include "services/draft/draft_worker.h"

#include <utility>

#include "common/worker/worker_process.h"

namespace tandem::draft {

DraftWorker::DraftWorker(const worker::WorkerOptions& options, worker::LoadedModel model)
    : device_(std::move(model.device)),
      executor_(std::move(model.executor)),
      engine_(executor_.get(), options.max_sequences,
              device_ != nullptr ? device_->pages() : nullptr) {
  const ModelConfig& config = executor_->config();
  info_ = {
      .model_name = config.name,
      .quantization = model.quantization,
      .num_parameters = config.num_parameters,
      .vocab_size = config.vocab_size,
      .context_length = executor_->limits().max_positions,
      .kv_type = worker::KvTypeName(executor_->kv_layout().k_type, executor_->kv_layout().v_type),
      .model_path = options.model,
      .weight_bytes = executor_->weight_bytes(),
      .workspace_bytes = executor_->workspace_bytes(),
      .max_step_tokens = executor_->limits().max_step_tokens,
      .max_logits_rows = executor_->limits().max_logits_rows,
      .max_sequences = options.max_sequences,
      .incarnation = worker::NewIncarnation(),
      .ring_name = options.use_ring ? options.ring_socket_path() : "",
      .restart_reason = options.restart_reason,
      .map = model.map,
      .upload = model.upload,
      .warmup = worker::ProcessAge() - model.map - model.upload,
  };
  if (device_ != nullptr && device_->is_cuda()) {
    info_.is_cuda = true;
    info_.memory = [device = device_.get()] { return device->Memory(); };
  }
}

}  // namespace tandem::draft
