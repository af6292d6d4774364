// The thread that owns the engine.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <deque>
#include <functional>
#include <limits>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/container/flat_hash_set.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "services/gateway/engine/engine.h"

namespace tandem::gateway {

// A request that was handed over, for as long as the process lives.
enum class TicketId : int64_t {};

// What is let in, steps and queue together. Refusing is cheap: no request that is beyond
// them reaches the engine.
struct AdmissionLimits {
  int32_t max_requests = 272;           // the engine's own queue must hold as many
  int32_t max_requests_per_client = 0;  // 0: no limit of its own
  int64_t max_queued_tokens = std::numeric_limits<int64_t>::max();  // of their prompts
};

// Hands requests to the engine and runs its rounds. All methods are thread-safe.
class EngineThread {
 public:
  // `after_round` runs on the thread after each round: the sinks have all that it made.
  EngineThread(
      std::unique_ptr<Engine> engine, const AdmissionLimits& limits,
      std::function<void()> after_round = [] {});
  ~EngineThread();  // stops

  // Ends what still runs with UNAVAILABLE; what comes later is refused or ignored.
  void Stop();

  // Why a request of `client` would be refused now; before its prompt is looked at.
  absl::Status CheckRoom(const std::string& client) const;
  // When a request that was refused may come again: about when one that is here ends.
  absl::Duration RetryDelay() const;

  // The sink lives until it got OnFinished or OnError. RESOURCE_EXHAUSTED at once when there
  // are too many, ALREADY_EXISTS while a request of the same id runs; what only the engine
  // can tell comes as OnError.
  absl::StatusOr<TicketId> Submit(GenerationRequest request, std::shared_ptr<GenerationSink> sink);

  // Ends it with CANCELLED before the next step; unless it is over already.
  void Cancel(TicketId ticket, const absl::Status& reason);

  // Something the engine waits for may have happened: a client reads again, a worker is back.
  void Wake();

  int32_t num_requests() const;
  // False when requests still run at the end of `timeout`.
  bool WaitUntilIdle(absl::Duration timeout);

 private:
  // Stands between engine and sink, to know when a request is over.
  class Ticket;
  struct Cancellation {
    TicketId ticket;
    absl::Status reason;
  };

  absl::Status CheckRoomLocked(const std::string& client) const;
  void Run();
  void TakeOver(const std::shared_ptr<Ticket>& ticket);
  void DropFinished();
  void OnOver(Ticket* ticket);

  std::unique_ptr<Engine> engine_;
  const AdmissionLimits limits_;
  const std::function<void()> after_round_;

  mutable std::mutex mutex_;  // of what follows
  std::condition_variable work_;
  std::condition_variable idle_;
  bool is_stopping_ = false;
  bool is_woken_ = false;
  int64_t next_ticket_ = 1;
  int32_t num_requests_ = 0;
  int64_t num_queued_tokens_ = 0;
  absl::flat_hash_map<std::string, int32_t> num_requests_of_;  // by client, without zeros
  absl::Duration last_end_ = absl::ZeroDuration();
  absl::Duration mean_interval_ = absl::ZeroDuration();  // between ends
  std::deque<std::shared_ptr<Ticket>> submitted_;
  std::vector<Cancellation> cancelled_;
  absl::flat_hash_set<std::string> request_ids_;  // of requests that are not over

  // The engine's thread.
  absl::flat_hash_map<TicketId, std::shared_ptr<Ticket>> tickets_;
  std::vector<TicketId> over_;

  std::thread thread_;
};

}  // namespace tandem::gateway
