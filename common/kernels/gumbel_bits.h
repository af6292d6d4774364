// The random bits behind the noise of speculation/philox.h, and that noise in float: for
// those who look for the ids that may win, not for which of them does.
//
// Source: Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3".
#pragma once

#include <array>
#include <cmath>
#include <cstdint>

#include "common/kernels/host_device.h"

namespace tandem {

// Numbers of different purposes are independent of each other. Part of the output's
// definition: the values never change.
enum class NoisePurpose : uint32_t {
  kGumbelGroup = 1,   // COUPLED: the largest noise of 64 ids
  kGumbelMember = 2,  // COUPLED: the noise of one id below it
  kAccept = 3,        // REJECTION: is the draft token kept
  kSample = 4,        // REJECTION: correction, bonus and plain token
  kPropose = 5,       // REJECTION: the draft's own choice
};

inline constexpr int32_t kNoiseGroupIds = 64;

// Philox4x32-10: a keyed bijection of 128-bit blocks.
TANDEM_HOST_DEVICE constexpr std::array<uint32_t, 4> Philox4x32(std::array<uint32_t, 4> counter,
                                                                std::array<uint32_t, 2> key) {
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

// `index`: which of the numbers for the token that will stand at `position`.
TANDEM_HOST_DEVICE constexpr std::array<uint32_t, 4> DrawBits(uint64_t seed, NoisePurpose purpose,
                                                              int32_t position, int32_t index) {
  return Philox4x32({static_cast<uint32_t>(position), static_cast<uint32_t>(purpose),
                     static_cast<uint32_t>(index), 0},
                    {static_cast<uint32_t>(seed), static_cast<uint32_t>(seed >> 32)});
}

// GumbelNoise in float, within kMaxError of it.
class ApproximateNoise {
 public:
  // Noises up to 41 have a last place of 4e-6; their logarithms err by a few of those.
  static constexpr float kMaxError = 2e-5f;
  static constexpr float kMaxNoise = 41.0f;  // -log(-log(1 - 2^-53) / 64), rounded up

  TANDEM_HOST_DEVICE ApproximateNoise(uint64_t seed, int32_t position)
      : seed_(seed), position_(position) {}

  struct Group {
    float max_noise;
    float spacing;
    int32_t holder;
  };
  // The group of `id`.
  TANDEM_HOST_DEVICE Group GroupOf(int32_t id) const {
    const int32_t group = id / kNoiseGroupIds;
    const std::array<uint32_t, 4> words =
        DrawBits(seed_, NoisePurpose::kGumbelGroup, position_, group);
    const uint64_t bits = (static_cast<uint64_t>(words[0]) << 20) | (words[1] >> 12);
    const float spacing = MinusLog(2 * bits + 1, uint64_t{1} << 53, 0x1p-53f) / kNoiseGroupIds;
    return {-logf(spacing), spacing,
            group * kNoiseGroupIds + static_cast<int32_t>(words[2] % kNoiseGroupIds)};
  }
  TANDEM_HOST_DEVICE float At(int32_t id, const Group& group) const {
    if (id == group.holder) return group.max_noise;
    const std::array<uint32_t, 4> words =
        DrawBits(seed_, NoisePurpose::kGumbelMember, position_, id / 4);
    const uint64_t bits = words[id % 4];
    return -logf(group.spacing + MinusLog(2 * bits + 1, uint64_t{1} << 33, 0x1p-33f));
  }
  TANDEM_HOST_DEVICE float At(int32_t id) const { return At(id, GroupOf(id)); }

 private:
  // -log(part / whole). Near 1 a float has not the digits: what is missing to 1 has.
  TANDEM_HOST_DEVICE static float MinusLog(uint64_t part, uint64_t whole, float inverse_whole) {
    return part < whole / 2 ? -logf(static_cast<float>(part) * inverse_whole)
                            : -log1pf(-static_cast<float>(whole - part) * inverse_whole);
  }

  uint64_t seed_;
  int32_t position_;
};

}  // namespace tandem
