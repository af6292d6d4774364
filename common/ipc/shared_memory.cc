#include "common/ipc/shared_memory.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include <cerrno>
#include <cstring>

#include "absl/strings/str_cat.h"

namespace tandem {
namespace {

constexpr int kSizeSeals = F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL;

absl::Status SystemError(const char* what, int64_t bytes) {
  const int error = errno;
  const std::string message = absl::StrCat(what, " of ", bytes, " bytes: ", std::strerror(error));
  if (error == ENOMEM || error == ENOSPC || error == EFBIG) {
    return absl::ResourceExhaustedError(message);
  }
  return absl::InternalError(message);
}

absl::StatusOr<absl::Span<uint8_t>> MapFd(int fd, int64_t bytes) {
  void* address = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  if (address == MAP_FAILED) return SystemError("cannot map shared memory", bytes);
  // A child that is forked without exec must not share what only processes that shook
  // hands may touch.
  madvise(address, bytes, MADV_DONTFORK);
  return absl::Span<uint8_t>(static_cast<uint8_t*>(address), bytes);
}

}  // namespace

absl::StatusOr<SharedMemory> SharedMemory::Create(const std::string& name, int64_t bytes) {
  if (bytes < 1) return absl::InvalidArgumentError("shared memory of no bytes");
  SharedMemory shared;
  shared.fd_ = OwnedFd(memfd_create(name.c_str(), MFD_CLOEXEC | MFD_ALLOW_SEALING));
  if (!shared.fd_.is_open()) return SystemError("cannot create shared memory", bytes);
  if (ftruncate(shared.fd(), bytes) != 0) return SystemError("cannot size shared memory", bytes);
  if (fcntl(shared.fd(), F_ADD_SEALS, kSizeSeals) != 0) {
    return SystemError("cannot seal shared memory", bytes);
  }
  absl::StatusOr<absl::Span<uint8_t>> memory = MapFd(shared.fd(), bytes);
  if (!memory.ok()) return memory.status();
  shared.memory_ = *memory;
  shared.file_bytes_ = bytes;
  return shared;
}

absl::StatusOr<SharedMemory> SharedMemory::Map(OwnedFd fd, int64_t map_bytes) {
  const int seals = fcntl(fd.get(), F_GET_SEALS);
  if (seals < 0 || (seals & F_SEAL_SHRINK) == 0) {
    return absl::FailedPreconditionError(
        "the descriptor is no shared memory of fixed size: it is not a memfd sealed against "
        "shrinking");
  }
  struct stat info;
  if (fstat(fd.get(), &info) != 0) return SystemError("cannot look at shared memory", map_bytes);
  if (map_bytes < 0 || info.st_size < 1 || map_bytes > info.st_size) {
    return absl::DataLossError(absl::StrCat("shared memory has ", int64_t{info.st_size}, " bytes, ",
                                            map_bytes, " are wanted"));
  }
  if (map_bytes == 0) map_bytes = info.st_size;
  absl::StatusOr<absl::Span<uint8_t>> memory = MapFd(fd.get(), map_bytes);
  if (!memory.ok()) return memory.status();
  SharedMemory shared;
  shared.fd_ = std::move(fd);
  shared.memory_ = *memory;
  shared.file_bytes_ = info.st_size;
  return shared;
}

SharedMemory::SharedMemory(SharedMemory&& other) noexcept
    : fd_(std::move(other.fd_)),
      file_bytes_(std::exchange(other.file_bytes_, 0)),
      memory_(std::exchange(other.memory_, {})) {}

SharedMemory& SharedMemory::operator=(SharedMemory&& other) noexcept {
  if (this != &other) {
    if (!memory_.empty()) munmap(memory_.data(), memory_.size());
    fd_ = std::move(other.fd_);
    file_bytes_ = std::exchange(other.file_bytes_, 0);
    memory_ = std::exchange(other.memory_, {});
  }
  return *this;
}

SharedMemory::~SharedMemory() {
  if (!memory_.empty()) munmap(memory_.data(), memory_.size());
}

}  // namespace tandem
