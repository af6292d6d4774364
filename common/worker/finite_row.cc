#include "common/worker/finite_row.h"

#include <bit>
#include <cstdint>

namespace tandem::worker {

bool IsFiniteRow(absl::Span<const float> row) {
  // All exponent bits set: adding one to the exponent then carries into the sign bit.
  uint32_t carry = 0;
  for (const float value : row) {
    carry |= (std::bit_cast<uint32_t>(value) & 0x7fffffffu) + 0x00800000u;
  }
  return (carry & 0x80000000u) == 0;
}

}  // namespace tandem::worker
