// Random numbers without state: a number depends on what it is for and where it is
// used, never on what ran before. So a stream is the same in any batch, with or without
// drafts, and after a restart.
//
// Source: Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3".
#pragma once

#include <cstdint>

#include "common/kernels/gumbel_bits.h"

namespace tandem {

// Uniform in (0, 1), never 0 or 1, for the token that will stand at `position`.
double UniformAt(uint64_t seed, NoisePurpose purpose, int32_t position);

// Independent standard Gumbel noise for each id, for the token that will stand at
// `position`. argmax over ids of (log weight + noise) is then a sample of the weights.
//
// Built so that the argmax needs not look at every id: the largest noise of each group
// of 64 consecutive ids is drawn first, and which id has it; the others are drawn below
// it. The maximum of 64 standard Gumbels is a Gumbel shifted by log 64, its holder is
// uniform, and the others are independent given that they are smaller: with exponential
// spacings, noise(holder) = -log(E / 64) and noise(other) = -log(E / 64 + E_other).
// So the noises are exactly independent Gumbels, and a group whose largest log weight
// plus GroupMax is below the best so far holds no winner.
class GumbelNoise {
 public:
  static constexpr int32_t kGroupSize = kNoiseGroupIds;

  GumbelNoise(uint64_t seed, int32_t position) : seed_(seed), position_(position) {}

  // The group's largest noise and the id that has it.
  struct Group {
    double max_noise;
    double spacing;  // exp(-max_noise)
    int32_t holder;  // id
  };
  Group GroupAt(int32_t group) const;

  // Noise of `id`, whose group is given.
  double At(int32_t id, const Group& group) const;
  // The same, for ids here and there.
  double At(int32_t id) const { return At(id, GroupAt(id / kGroupSize)); }

 private:
  uint64_t seed_;
  int32_t position_;
};

}  // namespace tandem
