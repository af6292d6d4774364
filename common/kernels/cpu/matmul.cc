// One group of 16 outputs after the other, each for all rows of x in tiles of up to 8.
// With few rows bound by the read of the weights; with many by the dot products, one
// broadcast load each.
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

#include "common/kernels/cpu/int_dot-inl.h"

HWY_BEFORE_NAMESPACE();
namespace tandem::cpu::HWY_NAMESPACE {

// Rows that share an unpacked weight: their sums and results fill the registers.
constexpr int kMaxRows = HWY_TARGET == HWY_AVX3_DL ? 8 : 4;

// Records ahead of the one in work whose lines are asked for: some 2 KB, which covers the
// memory's latency at one core's share of its bandwidth.
constexpr int64_t kPrefetchRecords = 6;

HWY_INLINE void PrefetchRecord(const uint8_t* record, int64_t bytes) {
  for (int64_t offset = 0; offset < bytes; offset += 64) __builtin_prefetch(record + offset);
}

// acc[r] += the products of one record with kRows rows of x.
template <PackedFormat kFormat, int kRows>
HWY_INLINE void AddRecord(const uint8_t* HWY_RESTRICT record, size_t part,
                          const ActivationBlock* HWY_RESTRICT x, FloatVec* HWY_RESTRICT acc) {
  const FloatTag df;
  BlockSum<kFormat> sums[kRows];
#pragma GCC unroll 16
  for (int r = 0; r < kRows; ++r) sums[r].Start(x[r]);
#pragma GCC unroll 16
  for (int i = 0; i < 8; ++i) {
    const CodeVec codes = LoadCodes<kFormat>(record, part, static_cast<size_t>(i));
#pragma GCC unroll 16
    for (int r = 0; r < kRows; ++r) sums[r].Add(codes, x[r].codes + 4 * i);
  }
  const uint8_t* numbers = record + CodeBytes(kFormat) + 2 * part;
  const FloatVec scale = LoadHalves(numbers);
#pragma GCC unroll 16
  for (int r = 0; r < kRows; ++r) {
    const FloatVec factor = hn::Mul(scale, hn::Set(df, x[r].scale));
    acc[r] = hn::MulAdd(hn::ConvertTo(df, sums[r].Total()), factor, acc[r]);
  }
  if constexpr (kFormat == PackedFormat::kQ4Affine) {
    const FloatVec min = LoadHalves(numbers + 32);
#pragma GCC unroll 16
    for (int r = 0; r < kRows; ++r) {
      acc[r] = hn::MulAdd(min, hn::Set(df, x[r].scaled_sum), acc[r]);
    }
  }
}

// out[r][0..15] = the group's outputs for kRows rows of x, whose blocks for one column lie
// `stride` before those for the next.
template <PackedFormat kFormat, int kRows>
HWY_NOINLINE void QuantizedTile(const uint8_t* HWY_RESTRICT group, int64_t num_blocks,
                                const ActivationBlock* HWY_RESTRICT x, int64_t stride,
                                float* HWY_RESTRICT out) {
  constexpr int64_t kRecordBytes = RecordBytes(kFormat);
  const FloatTag df;
  for (size_t part = 0; part < kGroupRows; part += hn::Lanes(df)) {
    FloatVec acc[kRows];
#pragma GCC unroll 16
    for (int r = 0; r < kRows; ++r) acc[r] = hn::Zero(df);
    const uint8_t* HWY_RESTRICT record = group;
    const ActivationBlock* HWY_RESTRICT blocks = x;
    for (int64_t b = 0; b < num_blocks; ++b, record += kRecordBytes, blocks += stride) {
      PrefetchRecord(record + kPrefetchRecords * kRecordBytes, kRecordBytes);
      AddRecord<kFormat, kRows>(record, part, blocks, acc);
    }
#pragma GCC unroll 16
    for (int r = 0; r < kRows; ++r) hn::StoreU(acc[r], df, out + r * kGroupRows + part);
  }
}

template <PackedFormat kFormat>
HWY_INLINE FloatVec LoadElements(const uint8_t* HWY_RESTRICT from) {
  const FloatTag df;
  if constexpr (kFormat == PackedFormat::kF16) return LoadHalves(from);
  if constexpr (kFormat == PackedFormat::kBF16) {
    const hn::Rebind<uint16_t, IntTag> d16;
    const auto bits = hn::LoadU(d16, reinterpret_cast<const uint16_t*>(from));
    const hn::RebindToUnsigned<IntTag> du;
    return hn::BitCast(df, hn::ShiftLeft<16>(hn::PromoteTo(du, bits)));
  }
  return hn::LoadU(df, reinterpret_cast<const float*>(from));
}

// Column c goes to sum c mod 4, added up as (0 + 1) + (2 + 3): hides the FMA latency.
template <PackedFormat kFormat, int kRows>
HWY_NOINLINE void FloatTile(const uint8_t* HWY_RESTRICT group, const Activations& x,
                            int64_t first_row, float* HWY_RESTRICT out) {
  constexpr int64_t kBytes = ElementBytes(kFormat);
  const FloatTag df;
  const int64_t num_cols = x.num_cols();
  const float* HWY_RESTRICT x0 = x.floats() + first_row * num_cols;
  for (size_t part = 0; part < kGroupRows; part += hn::Lanes(df)) {
    FloatVec acc[kRows][4];
    for (int r = 0; r < kRows; ++r) {
      for (int s = 0; s < 4; ++s) acc[r][s] = hn::Zero(df);
    }
    for (int64_t col = 0; col < num_cols; col += 4) {
      const int64_t count = HWY_MIN(int64_t{4}, num_cols - col);
      for (int64_t s = 0; s < count; ++s) {
        const int64_t element = (col + s) * kGroupRows + static_cast<int64_t>(part);
        const FloatVec w = LoadElements<kFormat>(group + element * kBytes);
        for (int r = 0; r < kRows; ++r) {
          acc[r][s] = hn::MulAdd(w, hn::Set(df, x0[r * num_cols + col + s]), acc[r][s]);
        }
      }
    }
    for (int r = 0; r < kRows; ++r) {
      const FloatVec sum = hn::Add(hn::Add(acc[r][0], acc[r][1]), hn::Add(acc[r][2], acc[r][3]));
      hn::StoreU(sum, df, out + r * kGroupRows + part);
    }
  }
}

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
