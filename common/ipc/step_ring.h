// Messages between two processes through shared memory: requests one way, responses
// the other. It carries what the gRPC stream would, at less cost
// (services/target/transport_bench.cc measures both).
//
// Each direction has one producer and one consumer. A waiting side spins for a moment where that
// is of use, then sleeps on a futex, and spins again where a wait is about to end (ForecastWaits).
// It sleeps in slices of at most 50 ms, looking between them whether the
// connection that brought the ring is still open: so the death of the peer is noticed
// within 50 ms, and at once when the kernel closes it while we are about to sleep.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "absl/types/span.h"
#include "common/ipc/fd_exchange.h"
#include "common/ipc/shared_memory.h"
#include "common/ipc/spin.h"
#include "common/ipc/wait_forecast.h"

namespace tandem {

inline constexpr int64_t kMaxRingMessageBytes = 4 << 20;

struct RingDirection;  // in shared memory; see step_ring.cc

// One end. Send is called by one thread, Receive by one thread, Close by any. What comes
// in is checked and copied out before it is used: the peer can write at any time.
class StepRing {
 public:
  // A pair of ends over one memory, as the server and its client have them.
  static absl::StatusOr<SharedMemory> CreateMemory();
  enum class End { kServer, kClient };
  // `connection` (may be none) is watched for the peer's end. FAILED_PRECONDITION or
  // DATA_LOSS when `memory` holds no ring of this build.
  static absl::StatusOr<std::unique_ptr<StepRing>> Open(SharedMemory memory, OwnedFd connection,
                                                        End end);

  // Copies the message to the peer. INVALID_ARGUMENT over kMaxRingMessageBytes,
  // DEADLINE_EXCEEDED when the peer does not make room (the ring is then closed: part
  // of the message may be in it), UNAVAILABLE when it is gone, CANCELLED when closed.
  absl::Status Send(absl::Span<const uint8_t> message, absl::Duration timeout);

  // The next message, valid until the next call. DEADLINE_EXCEEDED (try again),
  // UNAVAILABLE, CANCELLED as above; DATA_LOSS when the ring's numbers make no sense.
  absl::StatusOr<absl::Span<const uint8_t>> Receive(absl::Duration timeout);

  // From the next Receive on waits are forecast: for a peer whose work is not done by the cores of
  // this machine. Not beside Receive.
  void ForecastWaits(const WaitForecast& forecast = WaitForecast()) {
    in_waiting_.forecast = forecast;
  }

  // Makes both calls return CANCELLED on this end, UNAVAILABLE on the other.
  void Close();

  // Whether the peer has closed its end or died; asks the kernel. From any thread.
  bool PeerIsGone() const;

  ~StepRing();  // closes

 private:
  // What the last waits of one side were like.
  struct Waiting {
    Spin spin;
    std::optional<WaitForecast> forecast;
  };

  StepRing() = default;
  // Waits until `ready` or an error; the other side changes `word` when it may be.
  template <class Ready>
  absl::Status Wait(std::atomic<uint32_t>& word, std::atomic<uint32_t>& waits, Waiting& waiting,
                    absl::Time deadline, Ready ready);
  absl::Status SendFragment(absl::Span<const uint8_t> bytes, uint32_t flags, absl::Time deadline);

  SharedMemory memory_;
  OwnedFd connection_;
  RingDirection* out_ = nullptr;
  RingDirection* in_ = nullptr;
  uint64_t out_head_ = 0;  // our own copies: what is shared could be scribbled over
  uint64_t in_tail_ = 0;
  Waiting out_waiting_;
  Waiting in_waiting_;
  std::atomic<bool> is_closed_ = false;
  std::vector<uint8_t> message_;  // the last one received, or as much as came of it
  bool is_message_done_ = false;
};

// Server side: makes a ring for each client that comes.
class StepRingListener {
 public:
  // Errors as FdListener::Listen.
  static absl::StatusOr<std::unique_ptr<StepRingListener>> Listen(const std::string& path,
                                                                  int64_t allowed_uid = -1);
  // The next client's ring; CANCELLED after Stop.
  absl::StatusOr<std::unique_ptr<StepRing>> Accept();
  void Stop() { listener_->Stop(); }
  const std::string& path() const { return listener_->path(); }

 private:
  std::unique_ptr<FdListener> listener_;
};

// Client side; errors as ConnectFds and StepRing::Open.
absl::StatusOr<std::unique_ptr<StepRing>> ConnectStepRing(const std::string& path,
                                                          absl::Duration timeout);

}  // namespace tandem
