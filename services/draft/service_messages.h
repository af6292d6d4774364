// Between the messages of draft/v1 and the engine's structs.
#pragma once

#include "absl/status/statusor.h"
#include "common/worker/step.h"
#include "services/draft/draft_info.h"
#include "tandem/draft/v1/draft.pb.h"

namespace tandem::draft {

// Counts are checked here, values by the engine. INVALID_ARGUMENT when page_ids and
// page_generations are not of one length.
absl::StatusOr<worker::WorkerStep> FromMessage(const v1::ProposeRequest& request);
void ToMessage(const worker::ProposeStepResult& result, v1::ProposeResponse* response);
void ToMessage(const DraftInfo& info, v1::GetInfoResponse* response);

}  // namespace tandem::draft
