// The parts of draft_choice.h that run on the device.
//
// Cost    a hash of ten rounds for each 32 ids of a row, whose noises have a bound in common;
//         a second one for the few ids that the bound leaves. Nothing for rows that do not sample.
// Order   ranks are maxima, bins are integers, sums have one order: the same bits each time.
// Tested  draft_loop_test.cc against the definition in doubles.
#pragma once

#include "common/kernels/cuda/draft_choice.h"
#include "common/kernels/cuda/exp_sums.cuh"
#include "common/kernels/cuda/logit_rank.cuh"
#include "common/kernels/gumbel_bits.h"

namespace tandem::cuda {

__device__ __forceinline__ bool Samples(const DraftSampling& sampling) {
  return sampling.inverse_temperature > 0.0f;
}
__device__ __forceinline__ bool HasBins(const DraftSampling& sampling) {
  return Samples(sampling) && (sampling.top_k > 0 || sampling.top_p < 1.0f);
}

struct ChoiceBins {
  unsigned counts[kChoiceBins];
  unsigned weights[kChoiceBins];  // of at most 2^16 ids of a part: vocabularies of 900,000
  unsigned long long best[kChoiceBins];
};

__device__ __forceinline__ uint64_t WarpMax(uint64_t value) {
#pragma unroll
  for (int offset = 16; offset > 0; offset /= 2) {
    const uint64_t other = __shfl_xor_sync(0xffffffffu, value, offset);
    value = other > value ? other : value;
  }
  return value;
}

// Asked of few ids: what it needs shall not be kept from all others.
static __device__ __noinline__ float MemberNoise(uint64_t seed, int32_t position, int32_t id,
                                                 ApproximateNoise::Group group) {
  return ApproximateNoise(seed, position).At(id, group);
}

// What one thread looks for in a row.
struct NoisySearch {
  const DraftSampling& sampling;
  int32_t position;
  float greatest;
  float least_score;  // the winner's is not below
  bool has_bins;
  ChoiceBins& bins;
  float sum;      // of the weights that count
  uint64_t best;  // of no bin

  // `group`: that of `id`. Ids that do not count come with a logit of -infinity.
  __device__ __forceinline__ void Look(float logit, int32_t id, int32_t place,
                                       const ApproximateNoise::Group& group) {
    const float scaled = (logit - greatest) * sampling.inverse_temperature;
    const bool is_near = has_bins && scaled > -kChoiceReach;
    const int bin = is_near ? static_cast<int>(fmaxf(-scaled, 0.0f) * kBinsOfTemperature) : 0;
    if (is_near) {
      const float weight = __expf(scaled + static_cast<float>(bin) / kBinsOfTemperature);
      atomicAdd(&bins.counts[bin], 1u);
      atomicAdd(&bins.weights[bin], __float2uint_rn(weight / kBinWeightUnit));
    }
    // With bins, what min_p leaves of top_p's choice is a matter for CutBins. What is no number
    // is seen in the sum.
    const bool is_kept = !(scaled < sampling.lowest);
    if (is_kept || has_bins) sum += __expf(scaled);
    if (!is_kept || !(scaled + group.max_noise >= least_score)) return;
    const float score = scaled + MemberNoise(sampling.seed, position, id, group);
    if (!(score >= least_score)) return;
    const uint64_t rank = Rank(score, static_cast<uint32_t>(place));
    if (is_near) {
      atomicMax(&bins.best[bin], static_cast<unsigned long long>(rank));
    } else {
      best = rank > best ? rank : best;
    }
  }
};

// The score of the row's likeliest id, which truncation never drops; without a bound where
// that id does not count.
__device__ __forceinline__ float LeastScore(const DraftSampling& sampling, int32_t position,
                                            const int32_t* kept_ids, uint32_t place,
                                            int32_t num_places) {
  constexpr float kRounding = 1e-3f;  // of both scores, and of noises
  static_assert(kRounding > 10 * ApproximateNoise::kMaxError);
  if (place >= static_cast<uint32_t>(num_places)) return -INFINITY;
  const auto id = kept_ids == nullptr ? static_cast<int32_t>(place) : kept_ids[place];
  if (id >= sampling.num_ids) return -INFINITY;
  const ApproximateNoise::Group group = ApproximateNoise(sampling.seed, position).GroupOf(id);
  return MemberNoise(sampling.seed, position, id, group) - kRounding;
}

// Passes the ids of part `part` of kExpSums of a row to `search`. A warp takes 32 places in
// a row, which are ids of one group of noises, then those kStride places further on. Called by
// a block of kExpThreads. kIsTrimmed: places have ids of their own, each of any group.
template <bool kIsTrimmed>
__device__ __forceinline__ void SearchPart(const ExpSumsCall& call, const int32_t* kept_ids,
                                           int64_t row, int part, NoisySearch& search) {
  constexpr int kBatch = 4;  // on their way together
  constexpr int kStride = kExpSums * kExpThreads;
  static_assert(kStride % kNoiseGroupIds == 0 && kNoiseGroupIds % 32 == 0 && 32 % kBatch == 0);
  const ApproximateNoise noise(search.sampling.seed, search.position);
  const float* logits = call.logits + row * call.stride;
  const int lane = threadIdx.x % 32;
  const int first = part * kExpThreads + static_cast<int>(threadIdx.x) - lane;
  ApproximateNoise::Group groups = {};  // of the 32 next turns, one a lane
  for (int turn = 0; first + turn * kStride < call.num_ids; turn += kBatch) {
    float batch[kBatch];
#pragma unroll
    for (int i = 0; i < kBatch; ++i) {
      const int place = first + (turn + i) * kStride + lane;
      batch[i] = place < call.num_ids ? logits[place] : -INFINITY;
    }
    if (!kIsTrimmed && turn % 32 == 0) groups = noise.GroupOf(first + (turn + lane) * kStride);
#pragma unroll
    for (int i = 0; i < kBatch; ++i) {
      const int place = first + (turn + i) * kStride + lane;
      int32_t id = place;
      ApproximateNoise::Group group;
      if constexpr (kIsTrimmed) {
        if (place < call.num_ids) id = kept_ids[place];
        group = noise.GroupOf(id);
      } else {
        const int from = (turn + i) % 32;
        group = {.max_noise = __shfl_sync(0xffffffffu, groups.max_noise, from),
                 .spacing = __shfl_sync(0xffffffffu, groups.spacing, from),
                 .holder = __shfl_sync(0xffffffffu, groups.holder, from)};
      }
      search.Look(id < search.sampling.num_ids ? batch[i] : -INFINITY, id, place, group);
    }
  }
}

// Of a row that samples, what StoreExpSum leaves of any other, of weights at the row's
// temperature, and the best id of the part. The row is of token `num_tokens` of the draft. All
// threads of a block of kExpThreads call it, and have a barrier before one tells other blocks.
__device__ __forceinline__ void StoreNoisyPart(const ExpSumsCall& call, const int32_t* kept_ids,
                                               const DraftSampling& sampling, int32_t num_tokens,
                                               int64_t row, int part, NoisyChoice* found) {
  constexpr int kWarps = kExpThreads / 32;
  static_assert(kExpThreads >= kChoiceBins && kWarps == 32);
  __shared__ ChoiceBins bins;
  __shared__ float sums[kWarps];
  __shared__ uint64_t bests[kWarps];
  __shared__ float least_score;
  const uint64_t rank = call.choices[row].rank;
  const bool has_bins = HasBins(sampling);
  const int32_t position = sampling.position + num_tokens;
  if (has_bins && threadIdx.x < kChoiceBins) {
    bins.counts[threadIdx.x] = 0;
    bins.weights[threadIdx.x] = 0;
    bins.best[threadIdx.x] = 0;
  }
  if (threadIdx.x == 0) {
    least_score = LeastScore(sampling, position, kept_ids, IdOfRank(rank), call.num_ids);
  }
  __syncthreads();
  NoisySearch search = {.sampling = sampling,
                        .position = position,
                        .greatest = LogitOfRank(rank),
                        .least_score = least_score,
                        .has_bins = has_bins,
                        .bins = bins,
                        .sum = 0.0f,
                        .best = 0};
  if (kept_ids == nullptr) {
    SearchPart<false>(call, kept_ids, row, part, search);
  } else {
    SearchPart<true>(call, kept_ids, row, part, search);
  }
  const float warp_sum = WarpTotal(search.sum);
  const uint64_t warp_best = WarpMax(search.best);
  if (threadIdx.x % 32 == 0) {
    sums[threadIdx.x / 32] = warp_sum;
    bests[threadIdx.x / 32] = warp_best;
  }
  __syncthreads();
  if (has_bins && threadIdx.x < kChoiceBins && bins.counts[threadIdx.x] > 0) {
    const auto count = static_cast<unsigned long long>(bins.counts[threadIdx.x]);
    atomicAdd(&found->bins[threadIdx.x], count << kBinWeightBits | bins.weights[threadIdx.x]);
    if (bins.best[threadIdx.x] > 0) {
      atomicMax(&found->best_of_bin[threadIdx.x], bins.best[threadIdx.x]);
    }
  }
  if (threadIdx.x < 32) {
    const float sum = WarpTotal(sums[threadIdx.x]);
    const uint64_t best = WarpMax(bests[threadIdx.x]);
    if (threadIdx.x == 0) {
      call.choices[row].exp_sums[part] = sum;
      found->best[part] = best;
    }
  }
}

// What a row's bins hold up to each of them, some a lane of a warp.
struct SummedBins {
  static constexpr int kOfLane = kChoiceBins / 32;
  unsigned counts[kOfLane];
  float weights[kOfLane];

  // Leaves `found->bins` empty.
  __device__ __forceinline__ SummedBins(NoisyChoice* found, int lane) {
    unsigned count = 0;
    float weight = 0.0f;
#pragma unroll
    for (int i = 0; i < kOfLane; ++i) {
      const int bin = lane * kOfLane + i;
      const unsigned long long all = __ldcg(&found->bins[bin]);
      found->bins[bin] = 0;
      count += static_cast<unsigned>(all >> kBinWeightBits);
      const auto units = static_cast<float>(all & ((1ull << kBinWeightBits) - 1));
      weight +=
          units * kBinWeightUnit * __expf(-static_cast<float>(bin) * (1.0f / kBinsOfTemperature));
      counts[i] = count;
      weights[i] = weight;
    }
#pragma unroll
    for (int offset = 1; offset < 32; offset *= 2) {
      const unsigned count_before = __shfl_up_sync(0xffffffffu, count, offset);
      const float weight_before = __shfl_up_sync(0xffffffffu, weight, offset);
      if (lane >= offset) {
        count += count_before;
        weight += weight_before;
      }
    }
    const unsigned count_before = __shfl_up_sync(0xffffffffu, count, 1);
    const float weight_before = __shfl_up_sync(0xffffffffu, weight, 1);
    if (lane == 0) return;
#pragma unroll
    for (int i = 0; i < kOfLane; ++i) {
      counts[i] += count_before;
      weights[i] += weight_before;
    }
  }

  // The first bin up to which there is `aim`; kChoiceBins where there is not as much.
  template <typename T>
  static __device__ __forceinline__ int FirstWith(const T (&sums)[kOfLane], T aim, int lane) {
    int bin = kChoiceBins;
#pragma unroll
    for (int i = kOfLane - 1; i >= 0; --i) bin = sums[i] >= aim ? lane * kOfLane + i : bin;
#pragma unroll
    for (int offset = 16; offset > 0; offset /= 2) {
      bin = min(bin, __shfl_xor_sync(0xffffffffu, bin, offset));
    }
    return bin;
  }
  __device__ __forceinline__ float WeightUpTo(int bin, int lane) const {
    float weight = 0.0f;
#pragma unroll
    for (int i = 0; i < kOfLane; ++i) weight = lane * kOfLane + i == bin ? weights[i] : weight;
    return __shfl_sync(0xffffffffu, weight, bin / kOfLane);
  }
};

// Makes a row with bins one without: what truncation keeps of it is all that there is, in its
// first part. Called by a warp that sees what all blocks have written.
__device__ __forceinline__ void CutBins(const DraftSampling& sampling, RowChoice* choice,
                                        NoisyChoice* found, int lane) {
  static_assert(kExpSums <= 32);
  const SummedBins bins(found, lane);
  uint64_t best = lane < kExpSums ? __ldcg(&found->best[lane]) : 0;
  const float all = WarpTotal(lane < kExpSums ? __ldcg(&choice->exp_sums[lane]) : 0.0f);
  int last = kChoiceBins;  // that is kept
  float kept = all;
  if (sampling.top_k > 0) {
    last = SummedBins::FirstWith(bins.counts, static_cast<unsigned>(sampling.top_k), lane);
    if (last < kChoiceBins) kept = bins.WeightUpTo(last, lane);
  }
  if (sampling.top_p < 1.0f) {
    last = min(last, SummedBins::FirstWith(bins.weights, sampling.top_p * kept, lane));
  }
  if (sampling.lowest > -kChoiceReach) {
    last = min(last, static_cast<int>(-sampling.lowest * kBinsOfTemperature));
  }
  if (last < kChoiceBins) {
    kept = bins.WeightUpTo(last, lane);
    best = 0;
  }
#pragma unroll
  for (int i = 0; i < SummedBins::kOfLane; ++i) {
    const int bin = lane * SummedBins::kOfLane + i;
    const uint64_t other = __ldcg(&found->best_of_bin[bin]);
    found->best_of_bin[bin] = 0;
    best = bin <= last && other > best ? other : best;
  }
  best = WarpMax(best);
  if (lane >= kExpSums) return;
  // A row that is not finite stays so.
  choice->exp_sums[lane] = lane == 0 ? (isfinite(all) ? kept : all) : 0.0f;
  found->best[lane] = lane == 0 ? best : 0;
}

// What the parts of a row chose, whose weights have the sum `sum`.
__device__ __forceinline__ DraftedToken NoisyToken(const ExpSumsCall& call,
                                                   const DraftSampling& sampling, int64_t row,
                                                   const RowChoice& choice, float sum,
                                                   const NoisyChoice* found) {
  uint64_t best = 0;
#pragma unroll
  for (int part = 0; part < kExpSums; ++part) {
    const uint64_t other = __ldcg(&found->best[part]);
    best = other > best ? other : best;
  }
  const float nan = __int_as_float(0x7fffffff);
  if (best == 0) return {-1, nan, nan, nan};
  const auto place = static_cast<int32_t>(IdOfRank(best));
  const float logit = __ldcg(call.logits + row * call.stride + place);
  const float scaled = (logit - LogitOfRank(choice.rank)) * sampling.inverse_temperature;
  return {place, logit, __expf(scaled) / sum, 1.0f / sum};
}

}  // namespace tandem::cuda
