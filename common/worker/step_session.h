// One gateway's session with a worker, over either transport.
#pragma once

#include <functional>
#include <mutex>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "common/telemetry/log.h"

namespace tandem::worker {

// How step messages come and results go; made for one session. `Request` and `Response`
// are the messages of the worker's contract.
template <class Request, class Response>
class StepTransport {
 public:
  virtual ~StepTransport() = default;
  // The next step. False when the gateway is gone, or the transport was told to end.
  virtual bool Receive(Request* request) = 0;
  virtual bool Send(const Response& response) = 0;
  // Makes a waiting Receive return false. From any thread.
  virtual void End() = 0;
};

// Lets one session in at a time, and ends it when the worker stops: between two steps,
// never within one. Thread-safe.
class SessionGate {
 public:
  // Enters; UNAVAILABLE while there is a session or after Stop: its gateway may come
  // back a moment later. `end_waiting` is called, from another thread, to wake the session
  // when it waits for a step and is to end.
  template <class EndWaiting>
  absl::Status Enter(EndWaiting end_waiting) {
    const std::lock_guard lock(mutex_);
    if (is_stopped_) return absl::UnavailableError("the worker stops");
    if (end_waiting_ != nullptr) {
      return absl::UnavailableError("another gateway is connected to this worker");
    }
    end_waiting_ = std::move(end_waiting);
    is_in_step_ = false;
    return absl::OkStatus();
  }
  void Leave() {
    const std::lock_guard lock(mutex_);
    end_waiting_ = nullptr;
  }

  // Around each step. False: the worker stops, and the step is not begun.
  bool BeginStep() {
    const std::lock_guard lock(mutex_);
    is_in_step_ = !is_stopped_;
    return is_in_step_;
  }
  // False: the worker stops, and the session ends after this step's answer.
  bool EndStep() {
    const std::lock_guard lock(mutex_);
    is_in_step_ = false;
    return !is_stopped_;
  }

  // No session and no step begins from here on.
  void Stop() {
    const std::lock_guard lock(mutex_);
    is_stopped_ = true;
    if (end_waiting_ != nullptr && !is_in_step_) end_waiting_();
  }

 private:
  std::mutex mutex_;
  bool is_stopped_ = false;
  bool is_in_step_ = false;
  std::function<void()> end_waiting_;  // empty: no session
};

// Serves one session: `run` turns a request into a response. Returns when the gateway is
// gone or the worker stops; UNAVAILABLE when it may not enter. `drop` is called at the end
// of a session that was let in, to forget its sequences. `name` is the transport's, for
// the log.
template <class Request, class Response, class Run, class Drop>
absl::Status ServeSession(SessionGate& gate, const char* name,
                          StepTransport<Request, Response>& transport, Run run, Drop drop) {
  if (absl::Status status = gate.Enter([&transport] { transport.End(); }); !status.ok()) {
    LogWarning(absl::StrCat("refused a gateway that came by ", name, ": ", status.message()));
    return status;
  }
  LogInfo(absl::StrCat("a gateway is connected by ", name));
  Request request;
  Response response;
  while (transport.Receive(&request) && gate.BeginStep()) {
    response.Clear();
    run(request, &response);
    const bool was_sent = transport.Send(response);
    if (!gate.EndStep() || !was_sent) break;
  }
  drop();
  LogInfo("the gateway is gone, its sequences are dropped");
  gate.Leave();
  return absl::OkStatus();
}

}  // namespace tandem::worker
