// Picks the kernel for a product of few rows (few_rows.cuh). Beyond 32 rows each 32 read the
// weights for themselves.
#include "common/kernels/cuda/few_rows.cuh"

namespace tandem::cuda {
namespace {

// Tiles of a warp, teams, slices, groups of rows, tiles ahead and blocks a processor: what was
// fastest of what few_rows_bench tries. Weights of 8 bits take twice the registers a tile.
constexpr int AheadOf(MatrixFormat format, int ahead) {
  return format == MatrixFormat::kCode8 && ahead > 1 ? ahead / 2 : ahead;
}
template <MatrixFormat F, int warp_tiles, int teams, int slices, int groups, int ahead,
          int blocks_per_sm>
using ShapeFor = Shape<F, warp_tiles, teams, slices, groups, AheadOf(F, ahead), blocks_per_sm>;

// Outputs from which on blocks are large enough in number to be large.
constexpr int32_t kManyFloats = 6144;
constexpr int32_t kManyGated = 24576;

template <MatrixFormat F>
cudaError_t LaunchFloat(const MatmulInput& in, const StoreEnd& end, int32_t max_rows,
                        const LaunchOptions& options) {
  constexpr int s = kFloatSlices;
  // Of a large model there are enough outputs to go round with several tiles each.
  if (in.weights.num_rows >= kManyFloats) {
    if (max_rows == 1) {
      return LaunchShape<ShapeFor<F, 1, 1, s, 0, 2, 3>>(in, end, max_rows, options);
    }
    if (max_rows <= 8) {
      return LaunchShape<ShapeFor<F, 1, 1, s, 1, 2, 3>>(in, end, max_rows, options);
    }
    if (max_rows <= 16) {
      return LaunchShape<ShapeFor<F, 1, 1, s, 2, 2, 3>>(in, end, max_rows, options);
    }
    return LaunchShape<ShapeFor<F, 4, 1, s, 4, 2, 1>>(in, end, max_rows, options);
  }
  if (max_rows == 1) return LaunchShape<ShapeFor<F, 1, 1, s, 0, 4, 2>>(in, end, max_rows, options);
  if (max_rows <= 8) return LaunchShape<ShapeFor<F, 1, 1, s, 1, 4, 2>>(in, end, max_rows, options);
  if (max_rows <= 16) return LaunchShape<ShapeFor<F, 1, 1, s, 2, 4, 2>>(in, end, max_rows, options);
  return LaunchShape<ShapeFor<F, 2, 1, s, 4, 1, 1>>(in, end, max_rows, options);
}

template <MatrixFormat F>
cudaError_t LaunchManyOutputs(const MatmulInput& in, const StoreEnd& end, int32_t max_rows,
                              const LaunchOptions& options) {
  constexpr int s = kManyOutputsSlices;
  if (max_rows == 1) return LaunchShape<ShapeFor<F, 2, 1, s, 0, 1, 4>>(in, end, max_rows, options);
  if (max_rows <= 8) return LaunchShape<ShapeFor<F, 2, 1, s, 1, 1, 4>>(in, end, max_rows, options);
  if (max_rows <= 16) return LaunchShape<ShapeFor<F, 2, 2, s, 2, 1, 2>>(in, end, max_rows, options);
  return LaunchShape<ShapeFor<F, 4, 1, s, 4, 2, 2>>(in, end, max_rows, options);
}

template <MatrixFormat F>
cudaError_t LaunchResidual(const MatmulInput& in, const ResidualEnd& end, int32_t max_rows,
                           const LaunchOptions& options) {
  constexpr int s = kResidualSlices;
  if (max_rows == 1) return LaunchShape<ShapeFor<F, 1, 2, s, 0, 4, 1>>(in, end, max_rows, options);
  if (max_rows <= 8) return LaunchShape<ShapeFor<F, 1, 2, s, 1, 4, 1>>(in, end, max_rows, options);
  if (max_rows <= 16) return LaunchShape<ShapeFor<F, 1, 2, s, 2, 2, 1>>(in, end, max_rows, options);
  constexpr int ahead = HasCodebook(F) ? 2 : 1;
  return LaunchShape<ShapeFor<F, 2, 1, s, 4, ahead, 1>>(in, end, max_rows, options);
}

template <MatrixFormat F>
cudaError_t LaunchGated(const MatmulInput& in, const GatedEnd& end, int32_t max_rows,
                        const LaunchOptions& options) {
  constexpr int s = kGatedSlices;
  if (max_rows <= 8 && in.weights.num_rows >= kManyGated) {
    return max_rows == 1 ? LaunchShape<ShapeFor<F, 2, 4, s, 0, 2, 2>>(in, end, max_rows, options)
                         : LaunchShape<ShapeFor<F, 2, 4, s, 1, 2, 2>>(in, end, max_rows, options);
  }
  if (max_rows == 1) return LaunchShape<ShapeFor<F, 1, 4, s, 0, 4, 2>>(in, end, max_rows, options);
  if (max_rows <= 8) return LaunchShape<ShapeFor<F, 1, 4, s, 1, 4, 2>>(in, end, max_rows, options);
  if (max_rows <= 16) {
    // Looking codes up takes the registers of a second tile.
    constexpr int tiles = HasCodebook(F) ? 1 : 2;
    return in.weights.num_rows >= kManyGated
               ? LaunchShape<ShapeFor<F, tiles, 4, s, 2, 1, 2>>(in, end, max_rows, options)
               : LaunchShape<ShapeFor<F, 1, 4, s, 2, 2, 2>>(in, end, max_rows, options);
  }
  return LaunchShape<ShapeFor<F, 2, 4, s, 4, 1, 1>>(in, end, max_rows, options);
}

template <MatrixFormat F>
cudaError_t LaunchFormat(const MatmulCall& call, int32_t max_rows, const LaunchOptions& options) {
  const MatmulInput& in = call.input;
  switch (call.end) {
    case MatmulEnd::kFloat:
      return in.weights.num_rows >= kManyOutputs
                 ? LaunchManyOutputs<F>(in, StoreEnd{call.float_output}, max_rows, options)
                 : LaunchFloat<F>(in, StoreEnd{call.float_output}, max_rows, options);
    case MatmulEnd::kResidual:
      return LaunchResidual<F>(in, ResidualEnd{call.residual_output}, max_rows, options);
    case MatmulEnd::kGated:
      return LaunchGated<F>(in, GatedEnd{call.gated_output}, max_rows, options);
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
    case MatrixFormat::kLinear4:
      return LaunchFormat<MatrixFormat::kLinear4>(call, max_rows, options);
    case MatrixFormat::kAffine4:
      return LaunchFormat<MatrixFormat::kAffine4>(call, max_rows, options);
    case MatrixFormat::kCode8:
      return LaunchFormat<MatrixFormat::kCode8>(call, max_rows, options);
  }
  return cudaErrorInvalidValue;
}

}  // namespace tandem::cuda
