#include "common/device/device_memory.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "common/base/status_macros.h"
#include "common/device/cuda_status.h"

namespace tandem {
namespace {

const char* KindName(MemoryKind kind) {
  switch (kind) {
    case MemoryKind::kWeights:
      return "weights";
    case MemoryKind::kKvPages:
      return "KV pages";
    case MemoryKind::kWorkspace:
      return "workspace";
  }
  return "unknown";
}

std::string FreeText() {
  size_t free_bytes = 0;
  size_t total_bytes = 0;
  if (cudaMemGetInfo(&free_bytes, &total_bytes) != cudaSuccess) return "free memory unknown";
  return absl::StrCat(free_bytes >> 20, " of ", total_bytes >> 20, " MiB are free on the device");
}

}  // namespace

int64_t DeviceLedger::total_bytes() const {
  int64_t total = 0;
  for (const auto& bytes : bytes_) total += bytes.load();
  return total;
}

absl::Status DeviceLedger::Add(MemoryKind kind, int64_t bytes) {
  bytes_[static_cast<size_t>(kind)] += bytes;
  const int64_t total = total_bytes();
  if (budget_bytes_ == 0 || total <= budget_bytes_) return absl::OkStatus();
  Remove(kind, bytes);
  return absl::ResourceExhaustedError(
      absl::StrCat("no room for ", bytes >> 20, " MiB of ", KindName(kind), ": ",
                   (total - bytes) >> 20, " of the budget of ", budget_bytes_ >> 20,
                   " MiB are taken; raise --vram-budget or take a smaller model or context"));
}

void DeviceLedger::Remove(MemoryKind kind, int64_t bytes) {
  bytes_[static_cast<size_t>(kind)] -= bytes;
}

absl::StatusOr<LedgerClaim> LedgerClaim::Make(DeviceLedger* ledger, MemoryKind kind,
                                              int64_t bytes) {
  LedgerClaim claim;
  RETURN_IF_ERROR(ledger->Add(kind, bytes));
  claim.ledger_ = ledger;
  claim.kind_ = kind;
  claim.bytes_ = bytes;
  return claim;
}

LedgerClaim& LedgerClaim::operator=(LedgerClaim&& other) noexcept {
  std::swap(ledger_, other.ledger_);
  std::swap(kind_, other.kind_);
  std::swap(bytes_, other.bytes_);
  return *this;
}

LedgerClaim::~LedgerClaim() {
  if (ledger_ != nullptr) ledger_->Remove(kind_, bytes_);
}

absl::StatusOr<DeviceBuffer> DeviceBuffer::Allocate(DeviceLedger* ledger, MemoryKind kind,
                                                    int64_t num_bytes) {
  DeviceBuffer buffer;
  if (num_bytes == 0) return buffer;
  ASSIGN_OR_RETURN(buffer.claim_, LedgerClaim::Make(ledger, kind, num_bytes));
  void* data = nullptr;
  if (const cudaError_t error = cudaMalloc(&data, num_bytes); error != cudaSuccess) {
    cudaGetLastError();  // the next call shall not see it
    if (error == cudaErrorMemoryAllocation) {
      return absl::ResourceExhaustedError(absl::StrCat("no room for ", num_bytes >> 20, " MiB of ",
                                                       KindName(kind), ": ", FreeText()));
    }
    return CudaStatus(error, "allocating device memory");
  }
  buffer.num_bytes_ = num_bytes;
  buffer.data_ = static_cast<uint8_t*>(data);
  return buffer;
}

DeviceBuffer::DeviceBuffer(DeviceBuffer&& other) noexcept { *this = std::move(other); }

DeviceBuffer& DeviceBuffer::operator=(DeviceBuffer&& other) noexcept {
  std::swap(claim_, other.claim_);
  std::swap(num_bytes_, other.num_bytes_);
  std::swap(data_, other.data_);
  return *this;
}

DeviceBuffer::~DeviceBuffer() {
  if (data_ != nullptr) cudaFree(data_);
}

}  // namespace tandem
