// Between the messages of gateway/v1 and the engine's structs.
#pragma once

#include <optional>
#include <string>

#include "absl/status/statusor.h"
#include "services/gateway/links/worker_description.h"
#include "services/gateway/served_model.h"
#include "services/gateway/stream_buffer.h"
#include "tandem/gateway/v1/gateway.pb.h"

namespace tandem::gateway {

// What the service adds to a request.
struct RequestContext {
  std::string request_id;
  std::string traceparent;                             // W3C, valid; empty: none
  std::string client;                                  // see ClientKeyOf
  uint64_t seed = 0;                                   // where the request names none
  absl::Duration arrival;                              // on the engine's clock
  absl::Duration deadline = absl::InfiniteDuration();  // on the engine's clock
};

// Tokenizes. Requires a request that was validated. Errors as ServedModel::RenderChat.
absl::StatusOr<GenerationRequest> ToGenerationRequest(const v1::GenerateRequest& request,
                                                      const ServedModel& model,
                                                      const RequestContext& context);

absl::StatusOr<ServedModel::RenderedChat> RenderChat(const v1::Chat& chat,
                                                     const ServedModel& model);

// What the events of one stream have in common.
struct StreamDescription {
  std::string request_id;
  std::string model;
  int32_t prompt_tokens = 0;
  uint64_t seed = 0;
  bool with_token_ids = false;
  bool with_logprobs = false;
  v1::Mode mode = v1::MODE_AUTO;  // in effect
  v1::Rule rule = v1::RULE_COUPLED;
};

StreamDescription DescribeStream(const v1::GenerateRequest& message,
                                 const GenerationRequest& request, const std::string& model);

// False when there is nothing to send: a delta without text for a client that wants no ids.
bool ToMessage(const StreamBuffer::Event& event, const StreamDescription& stream,
               v1::GenerateResponse* response);

// "started", "delta" or "finished": the label of a metric.
const char* EventName(const v1::GenerateResponse& response);

void ToMessage(const WorkerDescription& worker, bool is_up, v1::WorkerInfo* message);

// "stop", "stop_sequence", "length" or "context_full": the label of a metric.
const char* FinishReasonName(FinishReason reason);

}  // namespace tandem::gateway
