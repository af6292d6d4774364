#include "common/ipc/path_lock.h"

#include <fcntl.h>

#include <cerrno>
#include <cstring>

#include "absl/strings/str_cat.h"

namespace tandem {

absl::StatusOr<OwnedFd> LockPath(const std::string& path) {
  const std::string lock_path = path + ".lock";
  OwnedFd lock(open(lock_path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600));
  if (!lock.is_open()) {
    const int error = errno;
    return absl::UnavailableError(
        absl::StrCat("cannot create '", lock_path, "': ", std::strerror(error)));
  }
  struct flock whole = {};
  whole.l_type = F_WRLCK;
  whole.l_whence = SEEK_SET;
  if (fcntl(lock.get(), F_OFD_SETLK, &whole) != 0) {
    return absl::FailedPreconditionError(
        absl::StrCat("another process serves '", path, "': stop it or choose another socket path"));
  }
  return lock;
}

}  // namespace tandem
