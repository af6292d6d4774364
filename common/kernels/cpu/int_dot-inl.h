// Products of packed weight codes with int8 activations, for every SIMD target.
#if defined(TANDEM_KERNELS_CPU_INT_DOT_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef TANDEM_KERNELS_CPU_INT_DOT_INL_H_
#undef TANDEM_KERNELS_CPU_INT_DOT_INL_H_
#else
#define TANDEM_KERNELS_CPU_INT_DOT_INL_H_
#endif

#include <hwy/highway.h>

#include <cstdint>
#include <cstring>

#include "common/kernels/cpu/block_decoder.h"
#include "common/kernels/cpu/matmul.h"
#include "common/kernels/cpu/packed_layout.h"

HWY_BEFORE_NAMESPACE();
namespace tandem::cpu::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

using IntTag = hn::CappedTag<int32_t, 16>;
using FloatTag = hn::RebindToFloat<IntTag>;
using IntVec = hn::Vec<IntTag>;
using FloatVec = hn::Vec<FloatTag>;

// Four codes in each lane.
#if HWY_TARGET == HWY_SCALAR
struct CodeVec {
  int8_t bytes[4];
};
#else
using CodeTag = hn::Repartition<uint8_t, IntTag>;
using CodeVec = hn::Vec<CodeTag>;
#endif

// Formats whose codes are signed bytes; the others' are below 16.
constexpr bool IsSigned(PackedFormat format) {
  return format == PackedFormat::kQ8 || format == PackedFormat::kQ4Codebook;
}

// Whether signed codes are multiplied with 128 added: vpdpbusd takes unsigned ones.
constexpr bool kAdds128 = HWY_TARGET == HWY_AVX3_DL;

// What a block's sum starts from: minus the bias of the codes times the sum of x.
template <PackedFormat kFormat>
HWY_INLINE IntVec StartSum(const ActivationBlock& x) {
  const IntTag di;
  if constexpr (kFormat == PackedFormat::kQ4Symmetric) return hn::Set(di, x.minus_8_sums);
  if constexpr (IsSigned(kFormat) && kAdds128) return hn::Set(di, x.minus_128_sums);
  return hn::Zero(di);
}

// Four activations in every lane.
HWY_INLINE IntVec BroadcastFour(const int8_t* HWY_RESTRICT x) {
  int32_t four;
  std::memcpy(&four, x, sizeof(four));
  return hn::Set(IntTag(), four);
}

// Sums codes[4 lane + j] * x[j], j in [0, 4), over the columns of a block; exact.
#if HWY_TARGET == HWY_AVX3_DL

template <PackedFormat kFormat>
struct BlockSum {
  HWY_INLINE void Start(const ActivationBlock& x) { sum = StartSum<kFormat>(x); }
  HWY_INLINE void Add(CodeVec codes, const int8_t* HWY_RESTRICT x) {
    // An asm: this target of Highway 1.0.3 implies AVX512-VNNI but does not tell GCC.
    asm("vpdpbusd %2%{1to16%}, %1, %0"
        : "+v"(sum.raw)
        : "v"(codes.raw), "m"(*reinterpret_cast<const char(*)[4]>(x)));
  }
  HWY_INLINE IntVec Total() const { return sum; }

  IntVec sum;
};

#elif HWY_TARGET == HWY_AVX2

// Products are first summed in pairs of 16 bits.
template <PackedFormat kFormat>
struct BlockSum {
  HWY_INLINE void Start(const ActivationBlock& x) {
    sum = StartSum<kFormat>(x);
    pairs = _mm256_setzero_si256();
  }
  HWY_INLINE void Add(CodeVec codes, const int8_t* HWY_RESTRICT x) {
    const __m256i x4 = BroadcastFour(x).raw;
    if constexpr (IsSigned(kFormat)) {  // a pair is at most 2 * 128 * 127
      const __m256i both =
          _mm256_maddubs_epi16(_mm256_abs_epi8(codes.raw), _mm256_sign_epi8(x4, codes.raw));
      sum = hn::Add(sum, IntVec{_mm256_madd_epi16(both, _mm256_set1_epi16(1))});
    } else {  // eight pairs are at most 8 * 2 * 15 * 127
      pairs = _mm256_add_epi16(pairs, _mm256_maddubs_epi16(codes.raw, x4));
    }
  }
  HWY_INLINE IntVec Total() const {
    if constexpr (IsSigned(kFormat)) return sum;
    return hn::Add(sum, IntVec{_mm256_madd_epi16(pairs, _mm256_set1_epi16(1))});
  }

  IntVec sum;
  __m256i pairs;
};

#elif HWY_TARGET == HWY_SCALAR

template <PackedFormat kFormat>
struct BlockSum {
  HWY_INLINE void Start(const ActivationBlock& x) { sum = StartSum<kFormat>(x); }
  HWY_INLINE void Add(CodeVec codes, const int8_t* HWY_RESTRICT x) {
    for (size_t j = 0; j < 4; ++j) sum.raw += int32_t{codes.bytes[j]} * x[j];
  }
  HWY_INLINE IntVec Total() const { return sum; }

  IntVec sum;
};

#else

template <PackedFormat kFormat>
struct BlockSum {
  using PairTag = hn::Repartition<int16_t, IntTag>;
  HWY_INLINE void Start(const ActivationBlock& x) { sum = StartSum<kFormat>(x); }
  HWY_INLINE void Add(CodeVec codes, const int8_t* HWY_RESTRICT x) {
    const PairTag d16;
    const auto w = hn::BitCast(d16, codes);
    const auto x4 = hn::BitCast(d16, BroadcastFour(x));
    const auto low =
        hn::Mul(hn::ShiftRight<8>(hn::ShiftLeft<8>(w)), hn::ShiftRight<8>(hn::ShiftLeft<8>(x4)));
    const auto high = hn::Mul(hn::ShiftRight<8>(w), hn::ShiftRight<8>(x4));
    const IntVec pairs = hn::BitCast(IntTag(), hn::Add(low, high));
    sum = hn::Add(sum,
                  hn::Add(hn::ShiftRight<16>(pairs), hn::ShiftRight<16>(hn::ShiftLeft<16>(pairs))));
  }
  HWY_INLINE IntVec Total() const { return sum; }

  IntVec sum;
};

#endif

// The codes of columns 4 i .. 4 i + 3 of the rows from `part` on, as many as there are lanes,
// as BlockSum takes them.
#if HWY_TARGET == HWY_SCALAR
template <PackedFormat kFormat>
HWY_INLINE CodeVec LoadCodes(const uint8_t* HWY_RESTRICT record, size_t part, size_t i) {
  CodeVec codes;
  for (size_t j = 0; j < 4; ++j) {
    if constexpr (kFormat == PackedFormat::kQ8) {
      codes.bytes[j] = static_cast<int8_t>(record[64 * i + 4 * part + j]);
    } else {
      const int code = record[64 * (i / 2) + 4 * part + j] >> (i % 2 * 4) & 15;
      codes.bytes[j] =
          kFormat == PackedFormat::kQ4Codebook ? kIq4NlCodebook[code] : static_cast<int8_t>(code);
    }
  }
  return codes;
}
#else
template <PackedFormat kFormat>
HWY_INLINE CodeVec LoadCodes(const uint8_t* HWY_RESTRICT record, size_t part, size_t i) {
  const CodeTag d8;
  if constexpr (kFormat == PackedFormat::kQ8) {
    const CodeVec codes = hn::LoadU(d8, record + 64 * i + 4 * part);
    return kAdds128 ? hn::Xor(codes, hn::Set(d8, 0x80)) : codes;
  }
  const IntTag di;
  const CodeVec both = hn::LoadU(d8, record + 64 * (i / 2) + 4 * part);
  const CodeVec shifted =
      i % 2 == 0 ? both : hn::BitCast(d8, hn::ShiftRight<4>(hn::BitCast(di, both)));
  const CodeVec codes = hn::And(shifted, hn::Set(d8, 15));
  if constexpr (kFormat != PackedFormat::kQ4Codebook) return codes;
  HWY_ALIGN static constexpr int8_t kPlus128[16] = {1,    24,   45,   63,  79,  93,  106, 118,
                                                    -127, -115, -103, -90, -75, -59, -39, -15};
  const int8_t* book = kAdds128 ? kPlus128 : kIq4NlCodebook;
  return hn::TableLookupBytes(hn::LoadDup128(d8, reinterpret_cast<const uint8_t*>(book)), codes);
}
#endif

}  // namespace tandem::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // TANDEM_KERNELS_CPU_INT_DOT_INL_H_
