// KV pages in the memory of a device, opened by several processes.
//
// One process makes the memory, the others open it. Which way it is handed over is the
// transport; everything else is the same for all of them. Knows no CUDA: that is
// common/ipc/cuda_pages.h, and tests have a device of their own.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "absl/types/span.h"
#include "common/ipc/owned_fd.h"
#include "common/kv/pool_control.h"

namespace tandem {

// How the pages come to another process.
enum class PagesTransport : int32_t {
  kIpcHandle = 1,       // cudaIpcGetMemHandle; 64 bytes that name the memory
  kFileDescriptor = 2,  // a descriptor of the memory, which then outlives its maker
  // Not at all: each process has pages of its own, half of the budget each. Where nothing
  // else works; correct, since a page is written and read by processes of one role only.
  kSplit = 3,
};
const char* PagesTransportName(PagesTransport transport);

// Behind the pages of a device lies an area for the probe: the maker fills the first half,
// an opener the second.
inline constexpr int64_t kProbeBytes = 128;

// Pages that this process can use. Unmapped at the end; then nothing on the device may
// still use them. Thread-safe.
class DevicePages {
 public:
  virtual ~DevicePages() = default;
  virtual uint8_t* base() const = 0;  // an address on the device
  // Copies between host and pages, ordered with nothing else that runs on the device.
  // DEADLINE_EXCEEDED when the device does not get to it.
  virtual absl::Status Read(int64_t offset, absl::Span<uint8_t> to, absl::Duration timeout) = 0;
  virtual absl::Status Write(int64_t offset, absl::Span<const uint8_t> from,
                             absl::Duration timeout) = 0;
};

// Pages just made, and what another process needs to open them.
struct MadePages {
  std::unique_ptr<DevicePages> pages;
  DevicePagesHandle handle = {};
  OwnedFd fd;  // kFileDescriptor
};

// A device whose memory can be shared. Thread-safe; outlives its pages.
class PagesDevice {
 public:
  virtual ~PagesDevice() = default;

  // "NVIDIA H100 80GB HBM3", and the 16 bytes that tell one device from another.
  virtual std::string name() const = 0;
  virtual absl::Span<const uint8_t> uuid() const = 0;
  // Whether the driver says that it can; the probe tells whether it does.
  virtual bool Supports(PagesTransport transport) const = 0;

  // RESOURCE_EXHAUSTED when there is no room; the memory is not cleared.
  virtual absl::StatusOr<MadePages> Make(PagesTransport transport, int64_t num_bytes) = 0;
  // kSplit makes pages of its own. `handle` is a peer's: its size has been checked.
  virtual absl::StatusOr<std::unique_ptr<DevicePages>> Open(const DevicePagesHandle& handle,
                                                            OwnedFd fd) = 0;
};

// Makes pages for `geometry` with the first transport of kIpcHandle, kFileDescriptor and
// kSplit that the device supports (or `only` that one), and fills the probe area. Errors as
// Make; FAILED_PRECONDITION when the device does not support `only`.
absl::StatusOr<MadePages> MakeProbedPages(PagesDevice& device, const PoolGeometry& geometry,
                                          const PagesTransport* only);

// Whether the pages hold what `seed` fills a half of the probe area with; DATA_LOSS if not.
enum class ProbeHalf { kMaker, kOpener };
absl::Status WriteProbe(DevicePages& pages, int64_t pages_bytes, ProbeHalf half, uint64_t seed);
absl::Status CheckProbe(DevicePages& pages, int64_t pages_bytes, ProbeHalf half, uint64_t seed);

}  // namespace tandem
