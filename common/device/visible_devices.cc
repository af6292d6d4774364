#include "common/device/visible_devices.h"

#include <cstdlib>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"

namespace tandem {
namespace {

// The numbers of a list of numbers, else none. CUDA ends a list at -1.
std::vector<int32_t> NumbersOf(absl::string_view visible) {
  std::vector<int32_t> numbers;
  for (const absl::string_view entry : absl::StrSplit(visible, ',')) {
    int32_t number = 0;
    if (!absl::SimpleAtoi(entry, &number)) return {};
    if (number < 0) break;
    numbers.push_back(number);
  }
  return numbers;
}

}  // namespace

std::string VisibleDevices() {
  const char* visible = std::getenv(kVisibleDevices);
  return visible == nullptr ? "" : visible;
}

std::string VisibleToMpsClients(absl::string_view visible) {
  std::vector<int32_t> numbers = NumbersOf(visible);
  if (numbers.empty()) return std::string(visible);
  for (size_t i = 0; i < numbers.size(); ++i) numbers[i] = static_cast<int32_t>(i);
  return absl::StrJoin(numbers, ",");
}

absl::StatusOr<int32_t> MachineDevice(int32_t device, absl::string_view visible) {
  const std::vector<int32_t> numbers = NumbersOf(visible);
  if (numbers.empty()) return device;
  if (device >= static_cast<int32_t>(numbers.size())) {
    return absl::NotFoundError(absl::StrCat("there is no cuda:", device,
                                            ": CUDA_VISIBLE_DEVICES=", visible, " shows ",
                                            numbers.size(), " of the GPUs, counted from cuda:0"));
  }
  return numbers[device];
}

}  // namespace tandem
