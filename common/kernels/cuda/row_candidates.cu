// The ids of each row that a draw may choose, and the sum of the row's weights.
//
// Grid    kCandidateParts blocks for a row; those of a row that nobody asks about end at once.
// Memory  4 bytes read per logit, from the second cache; 8 written for an id that is found.
// Order   ids by atomics: a list has the same ids each time, in any order. Sums have one order.
#include "common/kernels/cuda/launch.cuh"
#include "common/kernels/cuda/logit_rank.cuh"
#include "common/kernels/cuda/mma.cuh"
#include "common/kernels/cuda/row_candidates.h"
#include "common/kernels/gumbel_bits.h"

namespace tandem::cuda {
namespace {

constexpr int kThreads = 512;
// Both scores err by the noise's error and by the rounding of a sum of up to 60.
constexpr float kScoreMargin = 1e-3f;
static_assert(kScoreMargin > 10 * ApproximateNoise::kMaxError);

__device__ __forceinline__ void Append(IdLogit* list, int32_t capacity, int32_t* count,
                                       IdLogit found) {
  // A list that ran over is of no use: flat rows would count for long.
  if (*static_cast<volatile int32_t*>(count) > capacity) return;
  const int32_t place = atomicAdd(count, 1);
  if (place < capacity) list[place] = found;
}

// The sum over the block, for its first thread.
__device__ __forceinline__ float BlockSum(float sum) {
  __shared__ float sums[kThreads / 32];
#pragma unroll
  for (int offset = 16; offset > 0; offset /= 2) sum += __shfl_xor_sync(0xffffffffu, sum, offset);
  if (threadIdx.x % 32 == 0) sums[threadIdx.x / 32] = sum;
  __syncthreads();
  sum = 0.0f;
  for (int warp = 0; warp < kThreads / 32; ++warp) sum += sums[warp];
  return sum;
}

// What one thread looks for in a row.
struct Search {
  CandidateQuery query;
  ApproximateNoise noise;
  float greatest;
  float least_score;  // of a contender
  CandidateRow* row;
  CandidateIds* ids;

  // The scaled logit, in the operations of the host.
  __device__ __forceinline__ float Scaled(float logit) const {
    return (logit - greatest) / query.temperature;
  }
  __device__ __forceinline__ void Look(float logit, int32_t id) const {
    const float scaled = Scaled(logit);
    const float band = -scaled / kNearBandWidth;
    if (query.wants_near && band < kNearBands) {
      const int b = static_cast<int>(band);
      Append(ids->near[b], kNearBandIds, &row->num_near[b], {logit, id});
    }
    if (!(scaled + ApproximateNoise::kMaxNoise >= least_score)) return;
    const ApproximateNoise::Group group = noise.GroupOf(id);
    if (scaled + group.max_noise < least_score) return;
    if (scaled + noise.At(id, group) < least_score) return;
    Append(ids->contenders, kMaxContenders, &row->num_contenders, {logit, id});
  }
};

__global__ void __launch_bounds__(kThreads) CandidatesKernel(CandidatesCall call) {
  LetNextKernelStart();
  WaitForPreviousKernel();
  const int64_t index = blockIdx.y;
  if (index >= *call.num_rows) return;
  CandidateRow* row = call.rows + index;
  const CandidateQuery query = row->query;
  if (!(query.temperature > 0.0f)) return;
  const auto id_of = [&](int32_t i) { return call.kept_ids == nullptr ? i : call.kept_ids[i]; };
  const uint64_t rank = call.choices[index].rank;
  const ApproximateNoise noise(query.seed, query.position);
  const Search search = {.query = query,
                         .noise = noise,
                         .greatest = LogitOfRank(rank),
                         .least_score = noise.At(id_of(IdOfRank(rank))) - kScoreMargin,
                         .row = row,
                         .ids = call.ids + index};
  const float* logits = call.logits + index * call.stride;
  float sum = 0.0f;
  for (int32_t i = blockIdx.x * kThreads + threadIdx.x; i < call.num_logits;
       i += kCandidateParts * kThreads) {
    const int32_t id = id_of(i);
    if (id >= query.num_ids) continue;
    const float logit = logits[i];
    if (!isfinite(logit)) {
      sum = __int_as_float(0x7fffffff);
      continue;
    }
    sum += __expf(search.Scaled(logit));
    search.Look(logit, id);
  }
  sum = BlockSum(sum);
  if (threadIdx.x == 0) row->exp_sums[blockIdx.x] = sum;
}

}  // namespace

cudaError_t LaunchCandidates(const CandidatesCall& call, int32_t max_rows,
                             const LaunchOptions& options) {
  return Launch(CandidatesKernel, dim3(kCandidateParts, max_rows), kThreads, 0, options, call);
}

}  // namespace tandem::cuda
