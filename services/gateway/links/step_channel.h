// One session with a worker: step messages there and back, one at a time.
#pragma once

#include "absl/status/status.h"
#include "absl/time/time.h"

namespace tandem::gateway {

// `Request` and `Response` are the messages of the worker's contract. Send and Receive are
// called by one thread at a time; destroying it ends the session.
template <class Request, class Response>
class StepChannel {
 public:
  virtual ~StepChannel() = default;

  // UNAVAILABLE when the worker is gone.
  virtual absl::Status Send(const Request& request) = 0;
  // The answer to what was sent last. DEADLINE_EXCEEDED after `timeout`: the session is then
  // of no use any more. UNAVAILABLE when the worker is gone, or why it ended the session.
  virtual absl::Status Receive(absl::Duration timeout, Response* response) = 0;
  // From any thread: whether the session was seen to be over. May notice late; costs no system
  // call, for it is asked several times a step.
  virtual bool IsOver() const = 0;
  // From any thread, now and then: looks whether the worker is still there.
  virtual void Look() {}
};

}  // namespace tandem::gateway
