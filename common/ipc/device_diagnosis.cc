#include "common/ipc/device_diagnosis.h"

#include <sys/stat.h>
#include <sys/utsname.h>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"

namespace tandem {
namespace {

// Whether the two paths are the same file; two that cannot be looked at are.
bool IsSameFile(const std::string& a, const std::string& b) {
  struct stat first, second;
  if (stat(a.c_str(), &first) != 0 || stat(b.c_str(), &second) != 0) return true;
  return first.st_dev == second.st_dev && first.st_ino == second.st_ino;
}

// "NVIDIA A16-8Q", "GRID T4-4C": a share of a card.
bool IsVirtualGpu(const std::string& name) {
  if (absl::StartsWith(name, "GRID")) return true;
  const size_t dash = name.rfind('-');
  if (dash == std::string::npos || dash + 2 >= name.size()) return false;
  const std::string profile = name.substr(dash + 1);
  return profile.find_first_not_of("0123456789") == profile.size() - 1 &&
         std::string("QCBA").find(profile.back()) != std::string::npos;
}

}  // namespace

SharingFacts GatherSharingFacts(pid_t peer, const std::string& device_name) {
  SharingFacts facts = {.os_release = "", .device_name = device_name};
  if (utsname names; uname(&names) == 0) facts.os_release = names.release;
  struct stat info;
  facts.has_shared_memory = stat("/dev/shm", &info) == 0;
  facts.same_pid_namespace = peer > 0;  // 0: it has no number in our namespace
  if (peer > 0) {
    const std::string proc = absl::StrCat("/proc/", peer);
    facts.same_pid_namespace = IsSameFile("/proc/self/ns/pid", proc + "/ns/pid");
    facts.same_shared_memory = IsSameFile("/dev/shm", absl::StrCat(proc, "/root", "/dev/shm"));
  }
  return facts;
}

std::string DiagnoseSharing(const SharingFacts& facts) {
  if (absl::StrContains(absl::AsciiStrToLower(facts.os_release), "microsoft")) {
    return "this is WSL2, whose driver cannot share device memory between processes: use "
           "--pool-transport split";
  }
  if (IsVirtualGpu(facts.device_name)) {
    return absl::StrCat(facts.device_name,
                        " is a virtual GPU; its profile must allow CUDA IPC (unified memory "
                        "enabled by the host), else use --pool-transport split");
  }
  if (!facts.same_pid_namespace) {
    return "target and draft are in two PID namespaces: run them in one container or share the "
           "namespace (docker --pid, shareProcessNamespace), or use --pool-transport fd";
  }
  if (!facts.has_shared_memory || !facts.same_shared_memory) {
    return "target and draft have no /dev/shm in common: mount the same one into both (docker "
           "--ipc), or use --pool-transport fd";
  }
  if (absl::StrContains(facts.device_name, "MIG")) {
    return absl::StrCat(facts.device_name,
                        " is a MIG instance: both workers must be given the same one, by its "
                        "UUID in CUDA_VISIBLE_DEVICES");
  }
  return "no known cause; the other transport may work (--pool-transport fd or ipc), and split "
         "always does";
}

}  // namespace tandem
