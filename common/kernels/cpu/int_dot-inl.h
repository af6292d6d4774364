// Products of packed 8-bit or 4-bit codes with int8 activations, for every SIMD target.
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
#include "common/kernels/cpu/packed_layout.h"

HWY_BEFORE_NAMESPACE();
namespace tandem::cpu::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

using IntTag = hn::CappedTag<int32_t, 16>;
using FloatTag = hn::RebindToFloat<IntTag>;
using CodeTag = hn::Repartition<uint8_t, IntTag>;
using IntVec = hn::Vec<IntTag>;
using FloatVec = hn::Vec<FloatTag>;
#if HWY_TARGET == HWY_SCALAR
struct CodeVec {
  int8_t bytes[4];
};
#else
using CodeVec = hn::Vec<CodeTag>;
#endif

// Formats whose codes are signed bytes; the others' are below 16.
constexpr bool IsSigned(PackedFormat format) {
  return format == PackedFormat::kQ8 || format == PackedFormat::kQ4Codebook;
}

// What was added to each code so that it is unsigned, to be taken off the sum again.
constexpr int32_t CodeOffset(PackedFormat format) {
  if (format == PackedFormat::kQ4Symmetric) return 8;
  return IsSigned(format) && HWY_TARGET == HWY_AVX3_DL ? 128 : 0;
}

// sum[lane] + codes[4 lane + j] * x[j] over j in [0, 4); x4 has x in every lane.
template <PackedFormat kFormat>
HWY_INLINE IntVec DotCodes(IntVec sum, CodeVec codes, IntVec x4) {
#if HWY_TARGET == HWY_AVX3_DL
  // An asm: this target of Highway 1.0.3 implies AVX512-VNNI but does not tell GCC.
  asm("vpdpbusd %2, %1, %0" : "+v"(sum.raw) : "v"(codes.raw), "v"(x4.raw));
  return sum;
#elif HWY_TARGET == HWY_AVX2
  // Pairs are summed in 16 bits: at most 2 * 127 * 127, which fits.
  __m256i pairs;
  if constexpr (IsSigned(kFormat)) {
    pairs = _mm256_maddubs_epi16(_mm256_abs_epi8(codes.raw), _mm256_sign_epi8(x4.raw, codes.raw));
  } else {
    pairs = _mm256_maddubs_epi16(codes.raw, x4.raw);
  }
  return hn::Add(sum, IntVec{_mm256_madd_epi16(pairs, _mm256_set1_epi16(1))});
#elif HWY_TARGET == HWY_SCALAR
  int8_t x[4];
  std::memcpy(x, &x4.raw, sizeof(x));
  for (size_t j = 0; j < 4; ++j) sum.raw += int32_t{codes.bytes[j]} * x[j];
  return sum;
#else
  const IntTag di;
  const hn::Repartition<int8_t, IntTag> d8;
  HWY_ALIGN int8_t code_bytes[hn::MaxLanes(d8)], x_bytes[hn::MaxLanes(d8)];
  HWY_ALIGN int32_t products[hn::MaxLanes(di)];
  hn::Store(hn::BitCast(d8, codes), d8, code_bytes);
  hn::Store(hn::BitCast(d8, x4), d8, x_bytes);
  for (size_t lane = 0; lane < hn::Lanes(di); ++lane) {
    products[lane] = 0;
    for (size_t j = 4 * lane; j < 4 * lane + 4; ++j) {
      products[lane] += int32_t{code_bytes[j]} * x_bytes[j];
    }
  }
  return hn::Add(sum, hn::Load(di, products));
#endif
}

#if HWY_TARGET == HWY_SCALAR
template <PackedFormat kFormat>
HWY_INLINE void LoadCodes(const uint8_t* HWY_RESTRICT record, size_t part, CodeVec codes[8]) {
  for (size_t i = 0; i < 8; ++i) {
    for (size_t j = 0; j < 4; ++j) {
      if constexpr (kFormat == PackedFormat::kQ8) {
        codes[i].bytes[j] = static_cast<int8_t>(record[64 * i + 4 * part + j]);
      } else {
        const int code = record[64 * (i / 2) + 4 * part + j] >> (i % 2 * 4) & 15;
        codes[i].bytes[j] = kFormat == PackedFormat::kQ4Codebook ? kIq4NlCodebook[code]
                                                                 : static_cast<int8_t>(code);
      }
    }
  }
}
#else
// The codes of a record for DotCodes: codes[i] has columns 4 i .. 4 i + 3 of the rows from
// `part` on, as many as there are lanes.
template <PackedFormat kFormat>
HWY_INLINE void LoadCodes(const uint8_t* HWY_RESTRICT record, size_t part, CodeVec codes[8]) {
  const CodeTag d8;
  if constexpr (kFormat == PackedFormat::kQ8) {
    for (size_t i = 0; i < 8; ++i) {
      codes[i] = hn::LoadU(d8, record + 64 * i + 4 * part);
      if constexpr (CodeOffset(kFormat) != 0) codes[i] = hn::Xor(codes[i], hn::Set(d8, 0x80));
    }
  } else {
    const auto low_half = hn::Set(d8, 15);
    for (size_t i = 0; i < 4; ++i) {
      const auto both = hn::LoadU(d8, record + 64 * i + 4 * part);
      codes[2 * i] = hn::And(both, low_half);
      codes[2 * i + 1] =
          hn::And(hn::BitCast(d8, hn::ShiftRight<4>(hn::BitCast(IntTag(), both))), low_half);
    }
  }
  if constexpr (kFormat == PackedFormat::kQ4Codebook) {
    HWY_ALIGN static constexpr int8_t kOffsetBook[16] = {1,    24,   45,   63,  79,  93,  106, 118,
                                                         -127, -115, -103, -90, -75, -59, -39, -15};
    const auto book = hn::LoadDup128(
        d8,
        reinterpret_cast<const uint8_t*>(CodeOffset(kFormat) != 0 ? kOffsetBook : kIq4NlCodebook));
    for (size_t i = 0; i < 8; ++i) codes[i] = hn::TableLookupBytes(book, codes[i]);
  }
}

#endif  // HWY_TARGET == HWY_SCALAR

// Four activations in every lane.
HWY_INLINE IntVec BroadcastFour(const int8_t* HWY_RESTRICT x) {
  int32_t four;
  std::memcpy(&four, x, sizeof(four));
  return hn::Set(IntTag(), four);
}

// As many f16 numbers as there are lanes.
HWY_INLINE FloatVec LoadHalves(const uint8_t* HWY_RESTRICT from) {
  const FloatTag df;
  const hn::Rebind<hwy::float16_t, FloatTag> d16;
  return hn::PromoteTo(df, hn::LoadU(d16, reinterpret_cast<const hwy::float16_t*>(from)));
}

}  // namespace tandem::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // TANDEM_KERNELS_CPU_INT_DOT_INL_H_
