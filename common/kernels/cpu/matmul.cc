// Cuts products into tasks, and tasks into tiles: 16 outputs times up to kMaxRows rows. With few
// rows bound by the read of the weights; with many by the dot products of 8-bit numbers.
#include "common/kernels/cpu/matmul.h"

#include <algorithm>
#include <cassert>

#include "common/kernels/cpu/packed_layout.h"

#ifndef TANDEM_KERNELS_CPU_MATMUL_CC_
#define TANDEM_KERNELS_CPU_MATMUL_CC_

namespace tandem::cpu {

// Groups of outputs times rows of x: one task.
struct OutputBlock {
  int64_t group_begin;
  int64_t group_end;
  int64_t row_begin;  // a multiple of Activations::kTileRows
  int64_t row_end;
};

}  // namespace tandem::cpu

#endif  // TANDEM_KERNELS_CPU_MATMUL_CC_

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "common/kernels/cpu/matmul.cc"
#include <hwy/foreach_target.h>  // before highway.h
#include <hwy/highway.h>

#include "common/kernels/cpu/float_tile-inl.h"
#include "common/kernels/cpu/quantized_tile-inl.h"

HWY_BEFORE_NAMESPACE();
namespace tandem::cpu::HWY_NAMESPACE {

template <PackedFormat kFormat, int kRows>
HWY_INLINE void Tile(const uint8_t* group, const Activations& x, int64_t first_row, float* out) {
  if constexpr (IsQuantized(kFormat)) {
    const int64_t tile_row = first_row % Activations::kTileRows;
    const ActivationBlock* blocks = x.tile(first_row - tile_row) + tile_row;
    QuantizedTile<kFormat, kRows>(group, x.num_cols() / kBlock, blocks,
                                  x.tile_rows(first_row - tile_row), out);
  } else {
    FloatTile<kFormat, kRows>(group, x, first_row, out);
  }
}

template <PackedFormat kFormat>
void TileOf(int64_t rows, const uint8_t* group, const Activations& x, int64_t first_row,
            float* out) {
  switch (rows) {
    case 1:
      return Tile<kFormat, 1>(group, x, first_row, out);
    case 2:
      return Tile<kFormat, 2>(group, x, first_row, out);
    case 3:
      return Tile<kFormat, 3>(group, x, first_row, out);
    case 4:
      return Tile<kFormat, 4>(group, x, first_row, out);
  }
  if constexpr (kMaxRows > 4) {
    switch (rows) {
      case 5:
        return Tile<kFormat, 5>(group, x, first_row, out);
      case 6:
        return Tile<kFormat, 6>(group, x, first_row, out);
      case 7:
        return Tile<kFormat, 7>(group, x, first_row, out);
      case 8:
        return Tile<kFormat, 8>(group, x, first_row, out);
    }
  }
}

// Stores `rows` rows of a group's outputs, `num_outputs` of 16 each, or adds them to y.
void StoreTile(const float* HWY_RESTRICT tile, int64_t rows, int64_t num_outputs, bool accumulate,
               float* HWY_RESTRICT y, int64_t y_stride) {
  const FloatTag df;
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(df));
  for (; rows > 0; --rows, tile += kGroupRows, y += y_stride) {
    int64_t i = 0;
    for (; i + lanes <= num_outputs; i += lanes) {
      const FloatVec v = hn::Load(df, tile + i);
      hn::StoreU(accumulate ? hn::Add(hn::LoadU(df, y + i), v) : v, df, y + i);
    }
    for (; i < num_outputs; ++i) y[i] = accumulate ? y[i] + tile[i] : tile[i];
  }
}

template <PackedFormat kFormat>
void RunBlock(const Activations& x, const MatMulArgs& args, const OutputBlock& block) {
  const PackedMatrix& weight = *args.weight;
  const int64_t group_bytes = GroupBytes(kFormat, weight.num_cols);
  HWY_ALIGN float tile[kMaxRows * kGroupRows];
  for (int64_t row = block.row_begin; row < block.row_end; row += kMaxRows) {
    const int64_t rows = HWY_MIN(int64_t{kMaxRows}, block.row_end - row);
    for (int64_t group = block.group_begin; group < block.group_end; ++group) {
      const int64_t output = group * kGroupRows;
      const int64_t num_outputs = HWY_MIN(kGroupRows, weight.num_rows - output);
      TileOf<kFormat>(rows, weight.data.get() + group * group_bytes, x, row, tile);
      StoreTile(tile, rows, num_outputs, args.accumulate, args.y + row * args.y_stride + output,
                args.y_stride);
    }
  }
}

void RunBlockOf(const Activations& x, const MatMulArgs& args, const OutputBlock& block) {
  switch (args.weight->format) {
    case PackedFormat::kQ4Symmetric:
      return RunBlock<PackedFormat::kQ4Symmetric>(x, args, block);
    case PackedFormat::kQ4Affine:
      return RunBlock<PackedFormat::kQ4Affine>(x, args, block);
    case PackedFormat::kQ4Codebook:
      return RunBlock<PackedFormat::kQ4Codebook>(x, args, block);
    case PackedFormat::kQ8:
      return RunBlock<PackedFormat::kQ8>(x, args, block);
    case PackedFormat::kF16:
      return RunBlock<PackedFormat::kF16>(x, args, block);
    case PackedFormat::kBF16:
      return RunBlock<PackedFormat::kBF16>(x, args, block);
    case PackedFormat::kF32:
      return RunBlock<PackedFormat::kF32>(x, args, block);
  }
}

}  // namespace tandem::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace tandem::cpu {
namespace {

HWY_EXPORT(RunBlockOf);

constexpr int32_t kMaxArgs = 4;

// With few rows a task is this much of the weights, some 0.4 us: what two threads wait for
// each other at the end. With many it is a block of outputs, whose weights stay in the
// second-level cache while the rows pass, a tile at a time in the first-level one.
constexpr int64_t kTaskBytes = 8 * 1024;
constexpr int64_t kManyRows = 32;
constexpr int64_t kBlockRows = 64;  // a multiple of Activations::kTileRows
constexpr int64_t kBlockGroups = 4;

// How one product is cut into tasks: num_runs runs of groups for each run of rows.
struct Blocks {
  Blocks() = default;
  Blocks(const PackedMatrix& weight, int64_t num_x_rows);
  OutputBlock block(int64_t task) const;
  int32_t num_tasks() const { return static_cast<int32_t>(num_runs * num_row_runs); }

  int64_t num_groups = 0;
  int64_t groups_per_run = 1;
  int64_t num_runs = 0;
  int64_t num_rows = 0;
  int64_t rows_per_run = 1;
  int64_t num_row_runs = 1;
};

int64_t CeilDiv(int64_t a, int64_t b) { return (a + b - 1) / b; }

Blocks::Blocks(const PackedMatrix& weight, int64_t num_x_rows)
    : num_groups(NumGroups(weight.num_rows)), num_rows(num_x_rows) {
  if (num_rows < kManyRows) {
    const int64_t group_bytes = GroupBytes(weight.format, weight.num_cols);
    groups_per_run = std::max<int64_t>(1, kTaskBytes / group_bytes);
    rows_per_run = num_rows;
  } else {
    groups_per_run = kBlockGroups;
    rows_per_run = kBlockRows;
  }
  num_runs = CeilDiv(num_groups, groups_per_run);
  num_row_runs = num_rows == 0 ? 0 : CeilDiv(num_rows, rows_per_run);
}

OutputBlock Blocks::block(int64_t task) const {
  const int64_t group_begin = task / num_row_runs * groups_per_run;
  const int64_t row_begin = task % num_row_runs * rows_per_run;
  return {.group_begin = group_begin,
          .group_end = std::min(group_begin + groups_per_run, num_groups),
          .row_begin = row_begin,
          .row_end = std::min(row_begin + rows_per_run, num_rows)};
}

}  // namespace

void MatMul(const Activations& x, const MatMulArgs* args, int32_t num_args, ThreadPool& pool) {
  assert(num_args <= kMaxArgs);
  Blocks blocks[kMaxArgs];
  int32_t num_tasks = 0;
  for (int32_t i = 0; i < num_args; ++i) {
    assert(args[i].weight->num_cols == x.num_cols());
    blocks[i] = Blocks(*args[i].weight, x.num_rows());
    num_tasks += blocks[i].num_tasks();
  }
  pool.Run(num_tasks, [&](int32_t task, int32_t) {
    int32_t i = 0;
    while (task >= blocks[i].num_tasks()) task -= blocks[i++].num_tasks();
    HWY_DYNAMIC_DISPATCH(RunBlockOf)(x, args[i], blocks[i].block(task));
  });
}

}  // namespace tandem::cpu
#endif  // HWY_ONCE
