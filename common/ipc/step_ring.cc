#include "common/ipc/step_ring.h"

#include <linux/futex.h>
#include <poll.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>

#include "absl/strings/str_cat.h"
#include "common/base/clock.h"
#include "common/base/status_macros.h"

namespace tandem {

// One direction. The positions count bytes since the start and never wrap (584 years at
// 1 GB/s). Each has one writer: `head` the producer, `tail` the consumer.
struct RingDirection {
  static constexpr int64_t kCapacity = 256 << 10;

  alignas(64) std::atomic<uint64_t> head;           // bytes produced
  std::atomic<uint32_t> produced_word;              // futex; changes with head
  std::atomic<uint32_t> consumer_waits;             // 1 while it sleeps or is about to
  alignas(64) std::atomic<uint64_t> tail;           // bytes consumed
  std::atomic<uint32_t> consumed_word;              // futex; changes with tail
  std::atomic<uint32_t> producer_waits;             // likewise
  alignas(64) std::atomic<uint32_t> producer_left;  // 1 once the producer closed
  alignas(64) uint8_t bytes[kCapacity];
};

namespace {

constexpr uint64_t kMagic = 0x31474e5244544e54;  // "TNTDRNG1"
constexpr uint32_t kLayoutVersion = 1;
constexpr absl::Duration kSlice = absl::Milliseconds(50);
constexpr int64_t kMaxFragmentBytes = RingDirection::kCapacity / 4;
constexpr uint32_t kLastFragment = 1;

struct RingMemory {
  uint64_t magic;
  uint32_t layout_version;
  uint32_t size;
  RingDirection directions[2];  // requests, responses
};

// Before each fragment; both are padded to 8 bytes.
struct FragmentHeader {
  uint32_t num_bytes;
  uint32_t flags;
};

static_assert(std::atomic<uint64_t>::is_always_lock_free);
static_assert(sizeof(std::atomic<uint32_t>) == sizeof(uint32_t));

uint64_t RingFingerprint() {
  return kMagic ^ (uint64_t{kLayoutVersion} << 32) ^ sizeof(RingMemory);
}

uint64_t Padded(uint64_t bytes) { return (bytes + 7) / 8 * 8; }

// The memory is shared by processes, so none of these is FUTEX_PRIVATE.
void FutexWait(std::atomic<uint32_t>& word, uint32_t seen, absl::Duration timeout) {
  const timespec wait = absl::ToTimespec(timeout);
  syscall(SYS_futex, reinterpret_cast<uint32_t*>(&word), FUTEX_WAIT, seen, &wait, nullptr, 0);
}

void FutexWake(std::atomic<uint32_t>& word) {
  syscall(SYS_futex, reinterpret_cast<uint32_t*>(&word), FUTEX_WAKE, 1, nullptr, nullptr, 0);
}

// After a position has moved: the other side sleeps only after it announced that and
// then looked again, and all four accesses are sequentially consistent, so that either
// it sees the new position or we see it wait.
void Announce(std::atomic<uint32_t>& word, std::atomic<uint32_t>& waits) {
  word.fetch_add(1, std::memory_order_seq_cst);
  if (waits.load(std::memory_order_seq_cst) != 0) FutexWake(word);
}

// Both take no bytes at all too, from and to nowhere.
void CopyIn(RingDirection& ring, uint64_t position, const void* bytes, size_t size) {
  if (size == 0) return;
  const size_t offset = position % RingDirection::kCapacity;
  const size_t first = std::min<size_t>(size, RingDirection::kCapacity - offset);
  std::memcpy(ring.bytes + offset, bytes, first);
  std::memcpy(ring.bytes, static_cast<const uint8_t*>(bytes) + first, size - first);
}

void CopyOut(const RingDirection& ring, uint64_t position, void* bytes, size_t size) {
  if (size == 0) return;
  const size_t offset = position % RingDirection::kCapacity;
  const size_t first = std::min<size_t>(size, RingDirection::kCapacity - offset);
  std::memcpy(bytes, ring.bytes + offset, first);
  std::memcpy(static_cast<uint8_t*>(bytes) + first, ring.bytes, size - first);
}

}  // namespace

absl::StatusOr<SharedMemory> StepRing::CreateMemory() {
  ASSIGN_OR_RETURN(SharedMemory memory,
                   SharedMemory::Create("tandem-step-ring", sizeof(RingMemory)));
  auto* ring = reinterpret_cast<RingMemory*>(memory.memory().data());
  ring->magic = kMagic;
  ring->layout_version = kLayoutVersion;
  ring->size = sizeof(RingMemory);
  return memory;
}

absl::StatusOr<std::unique_ptr<StepRing>> StepRing::Open(SharedMemory memory, OwnedFd connection,
                                                         End end) {
  if (memory.memory().size() < sizeof(RingMemory)) {
    return absl::DataLossError(
        absl::StrCat("a ring needs ", sizeof(RingMemory), " bytes, has ", memory.memory().size()));
  }
  auto* shared = reinterpret_cast<RingMemory*>(memory.memory().data());
  if (shared->magic != kMagic || shared->layout_version != kLayoutVersion ||
      shared->size != sizeof(RingMemory)) {
    return absl::FailedPreconditionError("the shared memory is no ring of this build");
  }
  std::unique_ptr<StepRing> ring(new StepRing());
  ring->memory_ = std::move(memory);
  ring->connection_ = std::move(connection);
  const int out = end == End::kServer ? 1 : 0;
  ring->out_ = &shared->directions[out];
  ring->in_ = &shared->directions[1 - out];
  return ring;
}

StepRing::~StepRing() { Close(); }

void StepRing::Close() {
  if (out_ == nullptr || is_closed_.exchange(true)) return;
  out_->producer_left.store(1, std::memory_order_seq_cst);
  // Wake whoever sleeps on either direction, here or there.
  Announce(out_->produced_word, out_->consumer_waits);
  Announce(in_->consumed_word, in_->producer_waits);
  Announce(in_->produced_word, in_->consumer_waits);
  Announce(out_->consumed_word, out_->producer_waits);
}

bool StepRing::PeerIsGone() const {
  if (in_->producer_left.load(std::memory_order_seq_cst) != 0) return true;
  if (!connection_.is_open()) return false;
  pollfd entry = {.fd = connection_.get(), .events = POLLRDHUP, .revents = 0};
  return poll(&entry, 1, 0) > 0;
}

template <class Ready>
absl::Status StepRing::Wait(std::atomic<uint32_t>& word, std::atomic<uint32_t>& waits,
                            Waiting& waiting, absl::Time deadline, Ready ready) {
  const absl::Time start = SteadyNow();
  const auto succeed = [&] {
    if (waiting.forecast.has_value()) waiting.forecast->Record(SteadyNow() - start);
    return absl::OkStatus();
  };
  // Once, until it is woken or `end`; false when the wait is over.
  const auto sleep = [&](absl::Time end) {
    const uint32_t seen = word.load(std::memory_order_seq_cst);
    waits.store(1, std::memory_order_seq_cst);
    const absl::Time now = SteadyNow();
    const bool is_over = ready() || is_closed_.load() || PeerIsGone() || now >= deadline;
    if (!is_over && now < end) {
      FutexWait(word, seen, std::min({end - now, deadline - now, kSlice}));
    }
    waits.store(0, std::memory_order_seq_cst);
    return !is_over;
  };
  if (waiting.spin.Until(ready)) return succeed();
  const auto forecast = waiting.forecast.has_value() ? waiting.forecast->Next() : std::nullopt;
  if (forecast.has_value()) {
    const absl::Time look_at = start + forecast->sleep;
    while (SteadyNow() < look_at && sleep(look_at)) {
    }
    const absl::Duration left = deadline - SteadyNow();
    if (ready() || Spin::Look(std::min(left, forecast->look), ready)) return succeed();
  }
  while (sleep(absl::InfiniteFuture())) {
  }
  // What the peer wrote before it left still counts.
  if (ready()) return succeed();
  if (is_closed_.load()) return absl::CancelledError("the ring was closed");
  if (PeerIsGone()) return absl::UnavailableError("the peer left the ring");
  return absl::DeadlineExceededError("nothing happened in the ring");
}

absl::Status StepRing::Send(absl::Span<const uint8_t> message, absl::Duration timeout) {
  if (static_cast<int64_t>(message.size()) > kMaxRingMessageBytes) {
    return absl::InvalidArgumentError(absl::StrCat("a message of ", message.size(), " bytes; ",
                                                   kMaxRingMessageBytes, " are allowed"));
  }
  const absl::Time deadline = SteadyNow() + timeout;
  do {
    const size_t size = std::min<size_t>(message.size(), kMaxFragmentBytes);
    const uint32_t flags = size == message.size() ? kLastFragment : 0;
    if (absl::Status status = SendFragment(message.subspan(0, size), flags, deadline);
        !status.ok()) {
      Close();
      return status;
    }
    message.remove_prefix(size);
  } while (!message.empty());
  return absl::OkStatus();
}

absl::Status StepRing::SendFragment(absl::Span<const uint8_t> bytes, uint32_t flags,
                                    absl::Time deadline) {
  if (is_closed_.load()) return absl::CancelledError("the ring was closed");
  if (in_->producer_left.load() != 0) return absl::UnavailableError("the peer left the ring");
  const uint64_t head = out_head_;
  const uint64_t needed = sizeof(FragmentHeader) + Padded(bytes.size());
  uint64_t used = 0;
  RETURN_IF_ERROR(Wait(out_->consumed_word, out_->producer_waits, out_waiting_, deadline, [&] {
    used = head - out_->tail.load(std::memory_order_seq_cst);
    return used + needed <= static_cast<uint64_t>(RingDirection::kCapacity) ||
           used > static_cast<uint64_t>(RingDirection::kCapacity);
  }));
  if (used > static_cast<uint64_t>(RingDirection::kCapacity)) {
    return absl::DataLossError("the ring's positions make no sense");
  }
  const FragmentHeader header = {.num_bytes = static_cast<uint32_t>(bytes.size()), .flags = flags};
  CopyIn(*out_, head, &header, sizeof(header));
  CopyIn(*out_, head + sizeof(header), bytes.data(), bytes.size());
  out_head_ = head + needed;
  out_->head.store(out_head_, std::memory_order_seq_cst);
  Announce(out_->produced_word, out_->consumer_waits);
  return absl::OkStatus();
}

absl::StatusOr<absl::Span<const uint8_t>> StepRing::Receive(absl::Duration timeout) {
  const absl::Time deadline = SteadyNow() + timeout;
  if (is_message_done_) message_.clear();
  is_message_done_ = false;
  while (true) {
    uint64_t available = 0;
    RETURN_IF_ERROR(Wait(in_->produced_word, in_->consumer_waits, in_waiting_, deadline, [&] {
      available = in_->head.load(std::memory_order_seq_cst) - in_tail_;
      return available != 0;
    }));
    FragmentHeader header;
    if (available > static_cast<uint64_t>(RingDirection::kCapacity) || available < sizeof(header)) {
      return absl::DataLossError("the ring's positions make no sense");
    }
    CopyOut(*in_, in_tail_, &header, sizeof(header));
    const uint64_t size = header.num_bytes;
    if (size > static_cast<uint64_t>(kMaxFragmentBytes) ||
        sizeof(header) + Padded(size) > available ||
        message_.size() + size > static_cast<uint64_t>(kMaxRingMessageBytes)) {
      return absl::DataLossError(
          absl::StrCat("a fragment of ", size, " bytes where ", available, " are in the ring"));
    }
    const size_t old_size = message_.size();
    message_.resize(old_size + size);
    CopyOut(*in_, in_tail_ + sizeof(header), message_.data() + old_size, size);
    in_tail_ += sizeof(header) + Padded(size);
    in_->tail.store(in_tail_, std::memory_order_seq_cst);
    Announce(in_->consumed_word, in_->producer_waits);
    if ((header.flags & kLastFragment) == 0) continue;
    is_message_done_ = true;
    return absl::Span<const uint8_t>(message_);
  }
}

absl::StatusOr<std::unique_ptr<StepRingListener>> StepRingListener::Listen(const std::string& path,
                                                                           int64_t allowed_uid) {
  auto listener = std::make_unique<StepRingListener>();
  ASSIGN_OR_RETURN(listener->listener_, FdListener::Listen({.path = path,
                                                            .kind = FdKind::kStepRing,
                                                            .fingerprint = RingFingerprint(),
                                                            .allowed_uid = allowed_uid}));
  return listener;
}

absl::StatusOr<std::unique_ptr<StepRing>> StepRingListener::Accept() {
  while (true) {
    ASSIGN_OR_RETURN(FdClient client, listener_->Accept());
    absl::StatusOr<SharedMemory> memory = StepRing::CreateMemory();
    if (!memory.ok()) {
      SendFds(client, memory.status(), 0, {}).IgnoreError();
      continue;
    }
    if (!SendFds(client, absl::OkStatus(), 0, {memory->fd()}).ok()) continue;
    return StepRing::Open(*std::move(memory), std::move(client.connection), StepRing::End::kServer);
  }
}

absl::StatusOr<std::unique_ptr<StepRing>> ConnectStepRing(const std::string& path,
                                                          absl::Duration timeout) {
  ASSIGN_OR_RETURN(FdGrant grant, ConnectFds({.path = path,
                                              .kind = FdKind::kStepRing,
                                              .fingerprint = RingFingerprint(),
                                              .wanted_epoch = 0,
                                              .timeout = timeout}));
  ASSIGN_OR_RETURN(SharedMemory memory, SharedMemory::Map(std::move(grant.fds[0]), 0));
  return StepRing::Open(std::move(memory), std::move(grant.connection), StepRing::End::kClient);
}

}  // namespace tandem
