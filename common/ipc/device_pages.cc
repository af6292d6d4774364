#include "common/ipc/device_pages.h"

#include <cstring>

#include "absl/strings/str_cat.h"
#include "common/base/random.h"
#include "common/base/status_macros.h"

namespace tandem {
namespace {

constexpr int64_t kHalfBytes = kProbeBytes / 2;
constexpr absl::Duration kProbeTimeout = absl::Seconds(2);

// What `seed` fills half of the probe area with (SplitMix64).
void Fill(uint64_t seed, uint8_t* half) {
  for (int64_t i = 0; i < kHalfBytes; i += 8) {
    seed += 0x9e3779b97f4a7c15;
    uint64_t word = (seed ^ (seed >> 30)) * 0xbf58476d1ce4e5b9;
    word = (word ^ (word >> 27)) * 0x94d049bb133111eb;
    std::memcpy(half + i, &word, sizeof(word));
  }
}

int64_t OffsetOf(int64_t pages_bytes, ProbeHalf half) {
  return pages_bytes + (half == ProbeHalf::kOpener ? kHalfBytes : 0);
}

}  // namespace

const char* PagesTransportName(PagesTransport transport) {
  switch (transport) {
    case PagesTransport::kIpcHandle:
      return "ipc";
    case PagesTransport::kFileDescriptor:
      return "fd";
    case PagesTransport::kSplit:
      return "split";
  }
  return "?";
}

absl::Status WriteProbe(DevicePages& pages, int64_t pages_bytes, ProbeHalf half, uint64_t seed) {
  uint8_t bytes[kHalfBytes];
  Fill(seed, bytes);
  return pages.Write(OffsetOf(pages_bytes, half), bytes, kProbeTimeout);
}

absl::Status CheckProbe(DevicePages& pages, int64_t pages_bytes, ProbeHalf half, uint64_t seed) {
  uint8_t wanted[kHalfBytes];
  Fill(seed, wanted);
  uint8_t found[kHalfBytes] = {};
  RETURN_IF_ERROR(
      pages.Read(OffsetOf(pages_bytes, half), absl::MakeSpan(found, kHalfBytes), kProbeTimeout));
  if (std::memcmp(found, wanted, kHalfBytes) == 0) return absl::OkStatus();
  return absl::DataLossError(absl::StrCat("what the ",
                                          half == ProbeHalf::kMaker ? "target" : "draft",
                                          " wrote to the pages was not found there"));
}

absl::StatusOr<MadePages> MakeProbedPages(PagesDevice& device, const PoolGeometry& geometry,
                                          const PagesTransport* only) {
  PagesTransport transport = PagesTransport::kSplit;
  if (only != nullptr) {
    transport = *only;
    if (!device.Supports(transport)) {
      return absl::FailedPreconditionError(
          absl::StrCat(device.name(), " cannot hand out memory by --pool-transport ",
                       PagesTransportName(transport), ": leave the choice to auto"));
    }
  } else {
    for (const auto choice : {PagesTransport::kIpcHandle, PagesTransport::kFileDescriptor}) {
      if (!device.Supports(choice)) continue;
      transport = choice;
      break;
    }
  }
  ASSIGN_OR_RETURN(MadePages made, device.Make(transport, geometry.pages_bytes() + kProbeBytes));
  made.handle.transport = static_cast<int32_t>(transport);
  made.handle.num_bytes = geometry.pages_bytes() + kProbeBytes;
  made.handle.probe = RandomNumber();
  std::memcpy(made.handle.device_uuid, device.uuid().data(), sizeof(made.handle.device_uuid));
  RETURN_IF_ERROR(
      WriteProbe(*made.pages, geometry.pages_bytes(), ProbeHalf::kMaker, made.handle.probe));
  return made;
}

}  // namespace tandem
