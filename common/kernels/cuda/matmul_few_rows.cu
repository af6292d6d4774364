// Picks the kernel for a product of at most 32 rows (few_rows.cuh).
#include "common/kernels/cuda/few_rows.cuh"

namespace tandem::cuda {
namespace {

constexpr int kManyOutputs = 16384;

// Many warps with little in flight each, or fewer with more: what was fastest.
constexpr int AheadOf(MatrixFormat format, int teams, int groups) {
  return teams > 1 || groups > 2 || format == MatrixFormat::kCode8 ? 2 : 4;
}
constexpr int BlocksPerSm(int warp_tiles, int teams, int slices, int groups) {
  const int warps = teams * slices;
  if (groups > 1 || warp_tiles > 1) return warps > 16 ? 1 : 16 / warps;
  return teams == 1 ? 3 : 32 / warps;
}

template <MatrixFormat F, int kWarpTiles, int kTeams, int kSlices, int kGroups, class End>
cudaError_t LaunchFew(const MatmulInput& in, const End& end, const LaunchOptions& options) {
  return LaunchShape<Shape<F, kWarpTiles, kTeams, kSlices, kGroups, AheadOf(F, kTeams, kGroups),
                           BlocksPerSm(kWarpTiles, kTeams, kSlices, kGroups)>>(in, end, options);
}

template <MatrixFormat F, int kWarpTiles, int kTeams, int kSlices, class End>
cudaError_t LaunchGroups(const MatmulInput& in, const End& end, int32_t max_rows,
                         const LaunchOptions& options) {
  if (max_rows <= 8) {
    return LaunchFew<F, kWarpTiles, kTeams, kSlices, 1>(in, end, options);
  }
  if (max_rows <= 16) {
    return LaunchFew<F, kWarpTiles, kTeams, kSlices, 2>(in, end, options);
  }
  return LaunchFew<F, kWarpTiles, kTeams, kSlices, 4>(in, end, options);
}

template <MatrixFormat F>
cudaError_t LaunchFormat(const MatmulCall& call, int32_t max_rows, const LaunchOptions& options) {
  switch (call.end) {
    case MatmulEnd::kFloat:
      // Enough tiles for all processors (a head): two a warp cost less each.
      if (call.input.weights.num_rows >= kManyOutputs) {
        return LaunchGroups<F, 2, 1, kFloatSlices>(call.input, StoreEnd{call.float_output},
                                                   max_rows, options);
      }
      return LaunchGroups<F, 1, 1, kFloatSlices>(call.input, StoreEnd{call.float_output}, max_rows,
                                                 options);
    case MatmulEnd::kResidual:
      return LaunchGroups<F, 1, 2, kResidualSlices>(call.input, ResidualEnd{call.residual_output},
                                                    max_rows, options);
    case MatmulEnd::kGated:
      return LaunchGroups<F, 1, 4, kGatedSlices>(call.input, GatedEnd{call.gated_output}, max_rows,
                                                 options);
  }
  return cudaErrorInvalidValue;
}

}  // namespace

cudaError_t LaunchMatmulFewRows(const MatmulCall& call, int32_t max_rows,
                                const LaunchOptions& options) {
  if (max_rows > kMaxFewRows) return cudaErrorInvalidValue;
  switch (call.input.weights.format) {
    case MatrixFormat::kNf4:
      return LaunchFormat<MatrixFormat::kNf4>(call, max_rows, options);
    case MatrixFormat::kCode4:
      return LaunchFormat<MatrixFormat::kCode4>(call, max_rows, options);
    case MatrixFormat::kAffine4:
      return LaunchFormat<MatrixFormat::kAffine4>(call, max_rows, options);
    case MatrixFormat::kCode8:
      return LaunchFormat<MatrixFormat::kCode8>(call, max_rows, options);
  }
  return cudaErrorInvalidValue;
}

}  // namespace tandem::cuda
