#include "common/speculation/philox.h"

#include <cmath>

namespace tandem {
namespace {

// In (0, 1): the middle of one of 2^52 equal parts, which a double holds exactly.
double UniformOf52Bits(uint32_t high, uint32_t low) {
  const uint64_t bits = (static_cast<uint64_t>(high) << 20) | (low >> 12);
  return (static_cast<double>(bits) + 0.5) * 0x1p-52;
}

double UniformOf32Bits(uint32_t bits) { return (static_cast<double>(bits) + 0.5) * 0x1p-32; }

}  // namespace

double UniformAt(uint64_t seed, NoisePurpose purpose, int32_t position) {
  const std::array<uint32_t, 4> words = DrawBits(seed, purpose, position, 0);
  return UniformOf52Bits(words[0], words[1]);
}

GumbelNoise::Group GumbelNoise::GroupAt(int32_t group) const {
  const std::array<uint32_t, 4> words =
      DrawBits(seed_, NoisePurpose::kGumbelGroup, position_, group);
  const double spacing = -std::log(UniformOf52Bits(words[0], words[1])) / kGroupSize;
  return {.max_noise = -std::log(spacing),
          .spacing = spacing,
          .holder = group * kGroupSize + static_cast<int32_t>(words[2] % kGroupSize)};
}

double GumbelNoise::At(int32_t id, const Group& group) const {
  if (id == group.holder) return group.max_noise;
  const std::array<uint32_t, 4> words =
      DrawBits(seed_, NoisePurpose::kGumbelMember, position_, id / 4);
  return -std::log(group.spacing - std::log(UniformOf32Bits(words[id % 4])));
}

}  // namespace tandem
