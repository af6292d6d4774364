// The two messages of the descriptor exchange, and how they travel. Private to ipc/.
#pragma once

#include <sys/un.h>

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "common/ipc/owned_fd.h"

namespace tandem::internal {

inline constexpr uint64_t kFdMagic = 0x3158454644544e54;  // "TNTDFEX1"
inline constexpr uint32_t kFdProtocolVersion = 2;
inline constexpr int kMaxFds = 4;

struct FdRequest {
  uint64_t magic;
  uint32_t protocol_version;
  uint32_t kind;
  uint64_t fingerprint;
  int64_t wanted_epoch;
};

struct FdReply {
  uint64_t magic;
  int32_t status_code;
  int32_t num_fds;
  int64_t epoch;
  char message[232];  // ends with 0
};

// After a reply that hands out pages on a device, from a client that opened them; the
// server answers with an FdReply.
struct PagesReport {
  uint64_t magic;
  uint64_t probe;  // what the client filled its half of the probe area with
};

// Waits until `fd` has one of `events`; DEADLINE_EXCEEDED.
absl::Status PollUntil(int fd, short events, absl::Time deadline);

// Sends or receives exactly `size` bytes in one message. Descriptors that come with it
// are appended to `fds` (or closed when that is null). DATA_LOSS for another size.
absl::Status SendMessage(int socket, const void* bytes, size_t size, const std::vector<int>& fds);
absl::Status ReceiveMessage(int socket, void* bytes, size_t size, absl::Time deadline,
                            std::vector<OwnedFd>* fds);

// A socket address of `path`, in place; INVALID_ARGUMENT for one that is too long.
absl::Status FillAddress(const std::string& path, sockaddr_un* address);

}  // namespace tandem::internal
