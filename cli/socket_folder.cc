#include "cli/socket_folder.h"

#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <filesystem>
#include <system_error>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "common/base/status_macros.h"
#include "common/ipc/path_lock.h"

namespace tandem {
namespace {

namespace fs = std::filesystem;

constexpr char kPrefix[] = "tandem.";
constexpr char kSuffix[] = "XXXXXX";
constexpr std::time_t kMinAgeSeconds = 60;
constexpr size_t kMaxSocketPathBytes = 107;  // sockaddr_un, unix(7)
constexpr char kLongestSocket[] = "/gateway.sock";
constexpr char kLockName[] = "/serve";  // with LockPath's ".lock"

absl::Status CannotMake(const std::string& path) {
  return absl::UnavailableError(absl::StrCat("cannot make the folder of the sockets, ", path, ": ",
                                             std::strerror(errno),
                                             ": choose another with --socket-dir"));
}

// A folder of ours whose server is gone: it holds a lock file that nobody has locked, and is not
// just being made.
bool IsLeftBehind(const fs::path& folder) {
  struct stat found = {};
  const std::string name = folder.filename().string();
  const bool has_our_name =
      absl::StartsWith(name, kPrefix) && name.size() == sizeof(kPrefix) + sizeof(kSuffix) - 2;
  if (!has_our_name || lstat(folder.c_str(), &found) != 0 || !S_ISDIR(found.st_mode) ||
      found.st_uid != geteuid() || found.st_mtime > std::time(nullptr) - kMinAgeSeconds) {
    return false;
  }
  std::error_code error;
  return fs::exists(folder.string() + kLockName + ".lock", error) &&
         LockPath(folder.string() + kLockName).ok();
}

void RemoveLeftBehind(const fs::path& parent) {
  std::error_code error;
  for (fs::directory_iterator entry(parent, error), end; !error && entry != end;
       entry.increment(error)) {
    std::error_code ignored;
    if (IsLeftBehind(entry->path())) fs::remove_all(entry->path(), ignored);
  }
}

}  // namespace

absl::StatusOr<SocketFolder> SocketFolder::Make(const std::string& path) {
  SocketFolder folder;
  if (!path.empty()) {
    if (mkdir(path.c_str(), 0700) != 0 && errno != EEXIST) return CannotMake(path);
    folder.path_ = fs::absolute(path).lexically_normal().string();
  } else {
    const char* temporary = std::getenv("TMPDIR");
    const std::string parent = temporary != nullptr ? temporary : "/tmp";
    RemoveLeftBehind(parent);
    std::string name = absl::StrCat(parent, "/", kPrefix, kSuffix);
    if (mkdtemp(name.data()) == nullptr) return CannotMake(name);
    folder.path_ = name;
    folder.is_temporary_ = true;
  }
  ASSIGN_OR_RETURN(folder.lock_, LockPath(folder.path_ + kLockName));
  const size_t max_bytes = kMaxSocketPathBytes - (sizeof(kLongestSocket) - 1);
  if (folder.path_.size() > max_bytes) {
    return absl::InvalidArgumentError(absl::StrCat(
        "the folder of the sockets, ", folder.path_, ", has a path of ", folder.path_.size(),
        " bytes, at most ", max_bytes, ": choose another with --socket-dir"));
  }
  return folder;
}

ExitCode SocketFolder::ExitCodeOf(const absl::Status& status) {
  return absl::IsInvalidArgument(status) ? kExitUsage : kExitPort;
}

SocketFolder::~SocketFolder() {
  std::error_code error;
  if (is_temporary_ && lock_.is_open()) fs::remove_all(path_, error);
}

}  // namespace tandem
