// Memory of a CUDA device, every byte of it in one ledger.
#pragma once

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace tandem {

enum class MemoryKind : int32_t { kWeights = 0, kKvPages = 1, kWorkspace = 2 };
inline constexpr int32_t kNumMemoryKinds = 3;

// Bytes that this process holds on its device, by kind. Thread-safe; must outlive the
// buffers that are counted in it.
class DeviceLedger {
 public:
  // `budget_bytes`: no allocation goes beyond it in sum; 0: none.
  explicit DeviceLedger(int64_t budget_bytes = 0) : budget_bytes_(budget_bytes) {}

  int64_t bytes(MemoryKind kind) const { return bytes_[static_cast<size_t>(kind)].load(); }
  int64_t total_bytes() const;
  int64_t budget_bytes() const { return budget_bytes_; }

 private:
  friend class LedgerClaim;
  absl::Status Add(MemoryKind kind, int64_t bytes);
  void Remove(MemoryKind kind, int64_t bytes);

  const int64_t budget_bytes_;
  std::array<std::atomic<int64_t>, kNumMemoryKinds> bytes_ = {};
};

// Bytes of the ledger, held until the end. Movable.
class LedgerClaim {
 public:
  LedgerClaim() = default;
  // RESOURCE_EXHAUSTED naming the kind and what is held when it does not fit the budget.
  static absl::StatusOr<LedgerClaim> Make(DeviceLedger* ledger, MemoryKind kind, int64_t bytes);
  LedgerClaim(LedgerClaim&& other) noexcept { *this = std::move(other); }
  LedgerClaim& operator=(LedgerClaim&& other) noexcept;
  ~LedgerClaim();

 private:
  DeviceLedger* ledger_ = nullptr;
  MemoryKind kind_ = MemoryKind::kWorkspace;
  int64_t bytes_ = 0;
};

// One allocation on the device that is current when it is made. Movable.
class DeviceBuffer {
 public:
  DeviceBuffer() = default;
  // RESOURCE_EXHAUSTED naming the kind, what is held and what is free when it does not fit
  // the budget or the device. The memory is not cleared.
  static absl::StatusOr<DeviceBuffer> Allocate(DeviceLedger* ledger, MemoryKind kind,
                                               int64_t num_bytes);
  DeviceBuffer(DeviceBuffer&& other) noexcept;
  DeviceBuffer& operator=(DeviceBuffer&& other) noexcept;
  ~DeviceBuffer();

  int64_t num_bytes() const { return num_bytes_; }
  uint8_t* data() const { return data_; }
  template <typename T>
  T* as() const {
    return reinterpret_cast<T*>(data_);
  }

 private:
  LedgerClaim claim_;
  int64_t num_bytes_ = 0;
  uint8_t* data_ = nullptr;
};

}  // namespace tandem
