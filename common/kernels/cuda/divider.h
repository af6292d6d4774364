// Division by a number that is known at launch, as one product: a division takes some twenty
// instructions, one after the other.
#pragma once

#include <cstdint>

#include "common/kernels/host_device.h"

namespace tandem::cuda {

// Granlund and Montgomery (1994). Exact for numbers n with n * divisor < 2^32.
struct Divider {
  int32_t divisor = 1;
  uint32_t factor = 0;  // 2^32 / divisor, rounded up; 0 where that is 2^32

  constexpr Divider() = default;
  constexpr explicit Divider(int32_t number)
      : divisor(number),
        factor(number == 1 ? 0 : 0xffffffffu / static_cast<uint32_t>(number) + 1) {}

  TANDEM_HOST_DEVICE constexpr int32_t Quotient(int32_t n) const {
    if (factor == 0) return n;
    return static_cast<int32_t>(uint64_t{static_cast<uint32_t>(n)} * factor >> 32);
  }
  TANDEM_HOST_DEVICE constexpr int32_t Remainder(int32_t n) const {
    return n - Quotient(n) * divisor;
  }
};
static_assert(Divider(3).Quotient(31) == 10 && Divider(3).Remainder(31) == 1);
static_assert(Divider(256).Quotient(255) == 0 && Divider(256).Quotient(1 << 23) == 1 << 15);
static_assert(Divider(48).Quotient(47) == 0 && Divider(48).Quotient(48 << 20) == 1 << 20);

}  // namespace tandem::cuda
