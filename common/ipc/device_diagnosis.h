// Why two processes cannot share the memory of a device, in words for a person.
#pragma once

#include <sys/types.h>

#include <string>

namespace tandem {

// What is known of this process, its peer and the device.
struct SharingFacts {
  std::string os_release;   // of the kernel
  std::string device_name;  // as CUDA says it
  bool same_pid_namespace = true;
  bool same_shared_memory = true;  // /dev/shm of both is one file system
  bool has_shared_memory = true;   // there is a /dev/shm
};

// `peer`: the process at the other end, 0 when its number means nothing here.
SharingFacts GatherSharingFacts(pid_t peer, const std::string& device_name);

// One sentence with the likely cause and what to do; never empty.
std::string DiagnoseSharing(const SharingFacts& facts);

}  // namespace tandem
