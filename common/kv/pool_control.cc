#include "common/kv/pool_control.h"

#include <cstring>

#include "absl/strings/str_cat.h"
#include "common/base/check.h"
#include "common/base/status_macros.h"

namespace tandem {
namespace {

constexpr uint64_t kMagic = 0x314c4f4f504d4454;  // "TDMPOOL1"
constexpr uint32_t kLayoutVersion = 2;
constexpr int64_t kPageAlignment = 4096;  // page 0 starts a page of the machine
constexpr int32_t kMaxPages = 1 << 24;
constexpr int32_t kMaxSlots = 1 << 12;
constexpr int64_t kMaxTotalBytes = int64_t{1} << 46;

static_assert(std::atomic<uint32_t>::is_always_lock_free, "generations are shared by processes");
static_assert(sizeof(std::atomic<uint32_t>) == sizeof(uint32_t));

struct Offsets {
  int64_t generations = 0;
  int64_t slots = 0;
  int64_t pages = 0;
  int64_t total = 0;
};

int64_t RoundUp(int64_t value, int64_t multiple) {
  return (value + multiple - 1) / multiple * multiple;
}

absl::StatusOr<Offsets> Plan(const PoolGeometry& geometry) {
  if (geometry.epoch < 1 || geometry.num_pages < 1 || geometry.num_pages > kMaxPages ||
      geometry.page_bytes < 64 || geometry.page_bytes % 64 != 0 ||
      geometry.page_bytes > kMaxTotalBytes / geometry.num_pages ||
      geometry.num_draft_probs_slots < 0 || geometry.num_draft_probs_slots > kMaxSlots) {
    return absl::InvalidArgumentError(absl::StrCat(
        "no pool can have epoch ", geometry.epoch, ", ", geometry.num_pages, " pages of ",
        geometry.page_bytes, " bytes and ", geometry.num_draft_probs_slots, " slots: 1 to ",
        kMaxPages, " pages of a multiple of 64 bytes, at most ", kMaxSlots, " slots"));
  }
  Offsets offsets;
  offsets.generations = RoundUp(sizeof(PoolControlHeader), 64);
  offsets.slots = RoundUp(offsets.generations + int64_t{4} * geometry.num_pages, 64);
  offsets.pages =
      RoundUp(offsets.slots + int64_t{sizeof(DraftProbsSlot)} * geometry.num_draft_probs_slots,
              kPageAlignment);
  const bool on_host = geometry.page_memory == PageMemory::kHost;
  offsets.total = offsets.pages + (on_host ? geometry.pages_bytes() : 0);
  return offsets;
}

}  // namespace

uint64_t PoolFingerprint() {
  // FNV-1a over all that two builds must agree on.
  const uint64_t facts[] = {kMagic,
                            kLayoutVersion,
                            sizeof(PoolControlHeader),
                            sizeof(DraftProbsSlot),
                            sizeof(DraftProbsRow),
                            kMaxDraftLength,
                            kMaxDraftProbsEntries};
  uint64_t hash = 0xcbf29ce484222325;
  for (const uint64_t fact : facts) {
    for (int byte = 0; byte < 8; ++byte) {
      hash = (hash ^ ((fact >> (8 * byte)) & 0xff)) * 0x100000001b3;
    }
  }
  return hash;
}

absl::StatusOr<int64_t> PoolControlView::ControlBytes(const PoolGeometry& geometry) {
  ASSIGN_OR_RETURN(const Offsets offsets, Plan(geometry));
  return offsets.pages;
}

absl::StatusOr<int64_t> PoolControlView::TotalBytes(const PoolGeometry& geometry) {
  ASSIGN_OR_RETURN(const Offsets offsets, Plan(geometry));
  return offsets.total;
}

absl::StatusOr<PoolControlView> PoolControlView::Create(absl::Span<uint8_t> memory,
                                                        const PoolGeometry& geometry) {
  ASSIGN_OR_RETURN(const Offsets offsets, Plan(geometry));
  if (static_cast<int64_t>(memory.size()) < offsets.pages) {
    return absl::InvalidArgumentError(
        absl::StrCat("a control block of ", offsets.pages, " bytes does not fit ", memory.size()));
  }
  const PoolControlHeader header = {
      .magic = kMagic,
      .layout_version = kLayoutVersion,
      .num_pages = geometry.num_pages,
      .fingerprint = PoolFingerprint(),
      .epoch = geometry.epoch,
      .page_bytes = geometry.page_bytes,
      .generations_offset = offsets.generations,
      .slots_offset = offsets.slots,
      .pages_offset = offsets.pages,
      .total_bytes = offsets.total,
      .num_draft_probs_slots = geometry.num_draft_probs_slots,
      .page_memory = static_cast<int32_t>(geometry.page_memory),
      .device_pages = {},
  };
  std::memcpy(memory.data(), &header, sizeof(header));
  return Open(memory, offsets.total);
}

absl::StatusOr<PoolControlView> PoolControlView::Open(absl::Span<uint8_t> memory,
                                                      int64_t file_bytes) {
  PoolControlHeader header;  // a copy: the peer may write while we check
  if (memory.size() < sizeof(header)) {
    return absl::DataLossError(absl::StrCat("pool of ", memory.size(), " bytes has no header"));
  }
  std::memcpy(&header, memory.data(), sizeof(header));
  if (header.magic != kMagic) {
    return absl::FailedPreconditionError("the shared memory is no page pool (wrong magic)");
  }
  if (header.layout_version != kLayoutVersion || header.fingerprint != PoolFingerprint()) {
    return absl::FailedPreconditionError(
        absl::StrCat("the pool is of another build (layout version ", header.layout_version,
                     ", ours is ", kLayoutVersion, "): start all processes from one build"));
  }
  if (header.page_memory != static_cast<int32_t>(PageMemory::kHost) &&
      header.page_memory != static_cast<int32_t>(PageMemory::kDevice)) {
    return absl::DataLossError(absl::StrCat("no pool's pages are in memory ", header.page_memory));
  }
  PoolControlView view;
  view.header_ = reinterpret_cast<PoolControlHeader*>(memory.data());
  view.geometry_ = {.epoch = header.epoch,
                    .num_pages = header.num_pages,
                    .page_bytes = header.page_bytes,
                    .num_draft_probs_slots = header.num_draft_probs_slots,
                    .page_memory = static_cast<PageMemory>(header.page_memory)};
  const absl::StatusOr<Offsets> offsets = Plan(view.geometry_);
  if (!offsets.ok()) return absl::DataLossError(offsets.status().message());
  if (header.generations_offset != offsets->generations || header.slots_offset != offsets->slots ||
      header.pages_offset != offsets->pages || header.total_bytes != offsets->total) {
    return absl::DataLossError("the pool's header contradicts itself");
  }
  if (file_bytes < offsets->total || static_cast<int64_t>(memory.size()) < offsets->pages) {
    return absl::DataLossError(absl::StrCat("the pool needs ", offsets->total, " bytes, has ",
                                            file_bytes, ", of which ", memory.size(),
                                            " are mapped"));
  }
  view.pages_offset_ = offsets->pages;
  view.generations_ =
      reinterpret_cast<std::atomic<uint32_t>*>(memory.data() + offsets->generations);
  view.slots_ = reinterpret_cast<DraftProbsSlot*>(memory.data() + offsets->slots);
  return view;
}

uint32_t PoolControlView::generation(PageId page) const {
  const auto index = static_cast<int32_t>(page);
  TANDEM_CHECK(index >= 0 && index < geometry_.num_pages);
  return generations_[index].load(std::memory_order_acquire);
}

void PoolControlView::SetGeneration(PageId page, uint32_t generation) {
  const auto index = static_cast<int32_t>(page);
  TANDEM_CHECK(index >= 0 && index < geometry_.num_pages);
  generations_[index].store(generation, std::memory_order_release);
}

DraftProbsSlot* PoolControlView::draft_probs_slot(int32_t slot) const {
  TANDEM_CHECK(slot >= 0 && slot < geometry_.num_draft_probs_slots);
  return slots_ + slot;
}

}  // namespace tandem
