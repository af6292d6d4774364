// Between the messages of target/v1 and the engine's structs.
#pragma once

#include "absl/status/statusor.h"
#include "common/worker/step.h"
#include "services/target/target_info.h"
#include "tandem/target/v1/target.pb.h"

namespace tandem::target {

// Counts are checked here, values by the engine. INVALID_ARGUMENT when page_ids and
// page_generations are not of one length.
absl::StatusOr<worker::WorkerStep> FromMessage(const v1::VerifyRequest& request);
void ToMessage(const worker::VerifyStepResult& result, v1::VerifyResponse* response);
void ToMessage(const TargetInfo& info, v1::GetInfoResponse* response);

}  // namespace tandem::target
