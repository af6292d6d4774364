// One group of 16 outputs after the other, each for all rows of x in tiles of up to 8.
// With few rows bound by the read of the weights; with many by the dot products, one
// broadcast load each.
#include "common/kernels/cpu/matmul.h"

#include <algorithm>
#include <cassert>

#include "common/kernels/cpu/packed_layout.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "common/kernels/cpu/matmul.cc"
#include <hwy/foreach_target.h>  // before highway.h
#include <hwy/highway.h>

#include "common/kernels/cpu/int_dot-inl.h"

HWY_BEFORE_NAMESPACE();
namespace tandem::cpu::HWY_NAMESPACE {

// Records ahead of the one in work whose lines are asked for: some 2 KB, which covers the
// memory's latency at one core's share of its bandwidth.
constexpr int64_t kPrefetchRecords = 6;

HWY_INLINE void PrefetchRecord(const uint8_t* record, int64_t bytes) {
  for (int64_t offset = 0; offset < bytes; offset += 64) __builtin_prefetch(record + offset);
}

// out[r][0..15] = the group's outputs for rows first_row + r of x.
template <PackedFormat kFormat, int kRows>
HWY_NOINLINE void QuantizedTile(const uint8_t* HWY_RESTRICT group, const Activations& x,
                                int64_t first_row, float* HWY_RESTRICT out) {
  constexpr int64_t kRecordBytes = RecordBytes(kFormat);
  const IntTag di;
  const FloatTag df;
  const int64_t num_blocks = x.num_cols() / kBlock;
  const int8_t* codes_x[kRows];
  const float* scales_x[kRows];
  const int32_t* sums_x[kRows];
  for (int r = 0; r < kRows; ++r) {
    codes_x[r] = x.codes(first_row + r);
    scales_x[r] = x.scales(first_row + r);
    sums_x[r] = x.sums(first_row + r);
  }
  for (size_t part = 0; part < kGroupRows; part += hn::Lanes(di)) {
    FloatVec acc[kRows];
    for (int r = 0; r < kRows; ++r) acc[r] = hn::Zero(df);
    const uint8_t* HWY_RESTRICT record = group;
    for (int64_t block = 0; block < num_blocks; ++block, record += kRecordBytes) {
      PrefetchRecord(record + kPrefetchRecords * kRecordBytes, kRecordBytes);
      CodeVec codes[8];
      LoadCodes<kFormat>(record, part, codes);
      const uint8_t* numbers = record + CodeBytes(kFormat) + 2 * part;
      const FloatVec scale = LoadHalves(numbers);
      for (int r = 0; r < kRows; ++r) {
        IntVec sum = hn::Zero(di);
        for (int i = 0; i < 8; ++i) {
          sum =
              DotCodes<kFormat>(sum, codes[i], BroadcastFour(codes_x[r] + block * kBlock + 4 * i));
        }
        const int32_t sum_x = sums_x[r][block];
        if constexpr (CodeOffset(kFormat) != 0) {
          sum = hn::Sub(sum, hn::Set(di, CodeOffset(kFormat) * sum_x));
        }
        const float scale_x = scales_x[r][block];
        acc[r] = hn::MulAdd(hn::ConvertTo(df, sum), hn::Mul(scale, hn::Set(df, scale_x)), acc[r]);
        if constexpr (kFormat == PackedFormat::kQ4Affine) {
          const FloatVec offset = hn::Set(df, scale_x * static_cast<float>(sum_x));
          acc[r] = hn::MulAdd(LoadHalves(numbers + 32), offset, acc[r]);
        }
      }
    }
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
    QuantizedTile<kFormat, kRows>(group, x, first_row, out);
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
    case 5:
      return Tile<kFormat, 5>(group, x, first_row, out);
    case 6:
      return Tile<kFormat, 6>(group, x, first_row, out);
    case 7:
      return Tile<kFormat, 7>(group, x, first_row, out);
    default:
      return Tile<kFormat, 8>(group, x, first_row, out);
  }
}

template <PackedFormat kFormat>
void RunGroup(const Activations& x, const MatMulArgs& args, int64_t group_index) {
  const PackedMatrix& weight = *args.weight;
  const uint8_t* group = weight.data.get() + group_index * GroupBytes(kFormat, weight.num_cols);
  const int64_t first_output = group_index * kGroupRows;
  const int64_t num_outputs = HWY_MIN(kGroupRows, weight.num_rows - first_output);
  HWY_ALIGN float tile[8 * kGroupRows];
  for (int64_t row = 0; row < x.num_rows(); row += 8) {
    const int64_t rows = HWY_MIN(int64_t{8}, x.num_rows() - row);
    TileOf<kFormat>(rows, group, x, row, tile);
    for (int64_t r = 0; r < rows; ++r) {
      float* HWY_RESTRICT y = args.y + (row + r) * args.y_stride + first_output;
      for (int64_t i = 0; i < num_outputs; ++i) {
        y[i] = args.accumulate ? y[i] + tile[r * kGroupRows + i] : tile[r * kGroupRows + i];
      }
    }
  }
}

void RunGroups(const Activations& x, const MatMulArgs& args, int64_t begin, int64_t end) {
  for (int64_t group = begin; group < end; ++group) {
    switch (args.weight->format) {
      case PackedFormat::kQ4Symmetric:
        RunGroup<PackedFormat::kQ4Symmetric>(x, args, group);
        break;
      case PackedFormat::kQ4Affine:
        RunGroup<PackedFormat::kQ4Affine>(x, args, group);
        break;
      case PackedFormat::kQ4Codebook:
        RunGroup<PackedFormat::kQ4Codebook>(x, args, group);
        break;
      case PackedFormat::kQ8:
        RunGroup<PackedFormat::kQ8>(x, args, group);
        break;
      case PackedFormat::kF16:
        RunGroup<PackedFormat::kF16>(x, args, group);
        break;
      case PackedFormat::kBF16:
        RunGroup<PackedFormat::kBF16>(x, args, group);
        break;
      case PackedFormat::kF32:
        RunGroup<PackedFormat::kF32>(x, args, group);
        break;
    }
  }
}

}  // namespace tandem::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace tandem::cpu {
namespace {

HWY_EXPORT(RunGroups);

constexpr int32_t kMaxArgs = 4;

// Bytes of weights in one task: some microseconds of work, several tasks a thread.
constexpr int64_t kTaskBytes = 24 * 1024;

// A task is a run of groups of one of the matrices.
struct Chunks {
  int64_t groups_per_chunk = 1;
  int64_t num_groups = 0;
  int32_t num_chunks = 0;
};

Chunks ChunksOf(const PackedMatrix& weight, int64_t num_rows) {
  const int64_t group_bytes = GroupBytes(weight.format, weight.num_cols);
  // Beyond a tile of 8 rows the work grows with the rows.
  const int64_t work_bytes = group_bytes * std::max<int64_t>(1, num_rows / 8);
  Chunks chunks;
  chunks.num_groups = NumGroups(weight.num_rows);
  chunks.groups_per_chunk = std::max<int64_t>(1, kTaskBytes / work_bytes);
  chunks.num_chunks = static_cast<int32_t>((chunks.num_groups + chunks.groups_per_chunk - 1) /
                                           chunks.groups_per_chunk);
  return chunks;
}

}  // namespace

void MatMul(const Activations& x, const MatMulArgs* args, int32_t num_args, ThreadPool& pool) {
  assert(num_args <= kMaxArgs);
  Chunks chunks[kMaxArgs];
  int32_t num_tasks = 0;
  for (int32_t i = 0; i < num_args; ++i) {
    assert(args[i].weight->num_cols == x.num_cols());
    chunks[i] = ChunksOf(*args[i].weight, x.num_rows());
    num_tasks += chunks[i].num_chunks;
  }
  pool.Run(num_tasks, [&](int32_t task, int32_t) {
    int32_t i = 0;
    while (task >= chunks[i].num_chunks) task -= chunks[i++].num_chunks;
    const int64_t begin = task * chunks[i].groups_per_chunk;
    const int64_t end = std::min(begin + chunks[i].groups_per_chunk, chunks[i].num_groups);
    HWY_DYNAMIC_DISPATCH(RunGroups)(x, args[i], begin, end);
  });
}

}  // namespace tandem::cpu
#endif  // HWY_ONCE
