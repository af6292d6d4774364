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

std::array<uint32_t, 4> Draw(uint64_t seed, NoisePurpose purpose, int32_t position, int32_t index) {
  return Philox4x32({static_cast<uint32_t>(position), static_cast<uint32_t>(purpose),
                     static_cast<uint32_t>(index), 0},
                    {static_cast<uint32_t>(seed), static_cast<uint32_t>(seed >> 32)});
}

}  // namespace

std::array<uint32_t, 4> Philox4x32(std::array<uint32_t, 4> counter, std::array<uint32_t, 2> key) {
  constexpr uint64_t kMultiplier0 = 0xD2511F53;
  constexpr uint64_t kMultiplier1 = 0xCD9E8D57;
  constexpr uint32_t kWeyl0 = 0x9E3779B9;  // golden ratio
  constexpr uint32_t kWeyl1 = 0xBB67AE85;  // sqrt(3) - 1
  for (int round = 0; round < 10; ++round) {
    const uint64_t product0 = kMultiplier0 * counter[0];
    const uint64_t product1 = kMultiplier1 * counter[2];
    counter = {static_cast<uint32_t>(product1 >> 32) ^ counter[1] ^ key[0],
               static_cast<uint32_t>(product1),
               static_cast<uint32_t>(product0 >> 32) ^ counter[3] ^ key[1],
               static_cast<uint32_t>(product0)};
    key[0] += kWeyl0;
    key[1] += kWeyl1;
  }
  return counter;
}

double UniformAt(uint64_t seed, NoisePurpose purpose, int32_t position) {
  const std::array<uint32_t, 4> words = Draw(seed, purpose, position, 0);
  return UniformOf52Bits(words[0], words[1]);
}

GumbelNoise::Group GumbelNoise::GroupAt(int32_t group) const {
  const std::array<uint32_t, 4> words = Draw(seed_, NoisePurpose::kGumbelGroup, position_, group);
  const double spacing = -std::log(UniformOf52Bits(words[0], words[1])) / kGroupSize;
  return {.max_noise = -std::log(spacing),
          .spacing = spacing,
          .holder = group * kGroupSize + static_cast<int32_t>(words[2] % kGroupSize)};
}

double GumbelNoise::At(int32_t id, const Group& group) const {
  if (id == group.holder) return group.max_noise;
  const std::array<uint32_t, 4> words = Draw(seed_, NoisePurpose::kGumbelMember, position_, id / 4);
  return -std::log(group.spacing - std::log(UniformOf32Bits(words[id % 4])));
}

}  // namespace tandem
