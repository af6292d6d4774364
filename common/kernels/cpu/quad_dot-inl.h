// Sums of four products of unsigned and signed bytes, for every SIMD target.
#if defined(TANDEM_KERNELS_CPU_QUAD_DOT_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef TANDEM_KERNELS_CPU_QUAD_DOT_INL_H_
#undef TANDEM_KERNELS_CPU_QUAD_DOT_INL_H_
#else
#define TANDEM_KERNELS_CPU_QUAD_DOT_INL_H_
#endif

#include <hwy/highway.h>

#include <cstdint>
#include <cstring>

HWY_BEFORE_NAMESPACE();
namespace tandem::cpu::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

#if HWY_TARGET == HWY_AVX3_DL || HWY_TARGET == HWY_AVX3
// Sums neighbouring products in 16 bits: exact for k below 128.
HWY_INLINE hn::Vec<hn::Full512<int32_t>> PairProducts(__m512i k, __m512i q) {
  const __m512i pairs = _mm512_maddubs_epi16(k, q);
  return hn::Vec<hn::Full512<int32_t>>{_mm512_madd_epi16(pairs, _mm512_set1_epi16(1))};
}
#elif HWY_TARGET == HWY_AVX2
HWY_INLINE hn::Vec<hn::Full256<int32_t>> PairProducts(__m256i k, __m256i q) {
  const __m256i pairs = _mm256_maddubs_epi16(k, q);
  return hn::Vec<hn::Full256<int32_t>>{_mm256_madd_epi16(pairs, _mm256_set1_epi16(1))};
}
#endif

// sum[lane] + k[4 lane + i] * q[i] over i in [0, 4). `k` is aligned to a vector. Unless
// kWide, k is below 128.
template <bool kWide, class DI>
HWY_INLINE hn::Vec<DI> QuadDot(DI di, hn::Vec<DI> sum, const uint8_t* HWY_RESTRICT k,
                               const int8_t* HWY_RESTRICT q) {
  int32_t q_bytes;
  std::memcpy(&q_bytes, q, sizeof(q_bytes));
  [[maybe_unused]] const hn::Vec<DI> q4 = hn::Set(di, q_bytes);
#if HWY_TARGET == HWY_AVX3_DL
  // An asm: this target of Highway 1.0.3 implies AVX512-VNNI but does not tell GCC.
  __m512i result = sum.raw;
  asm("vpdpbusd %2, %1, %0" : "+v"(result) : "v"(_mm512_load_si512(k)), "v"(q4.raw));
  return hn::Vec<DI>{result};
#elif HWY_TARGET == HWY_AVX3 || HWY_TARGET == HWY_AVX2
  const hn::Repartition<uint8_t, DI> d8;
  const auto k8 = hn::Load(d8, k);
  if constexpr (!kWide) {
    return hn::Add(sum, PairProducts(k8.raw, q4.raw));
  } else {
    const auto low = hn::And(k8, hn::Set(d8, uint8_t{127}));
    const auto top = hn::And(hn::ShiftRight<7>(k8), hn::Set(d8, uint8_t{1}));
    sum = hn::Add(sum, PairProducts(low.raw, q4.raw));
    return hn::Add(sum, hn::ShiftLeft<7>(PairProducts(top.raw, q4.raw)));
  }
#else
  HWY_ALIGN int32_t products[hn::MaxLanes(DI())];
  for (size_t lane = 0; lane < hn::Lanes(di); ++lane) {
    products[lane] = 0;
    for (size_t i = 0; i < 4; ++i) products[lane] += int32_t{k[4 * lane + i]} * q[i];
  }
  return hn::Add(sum, hn::Load(di, products));
#endif
}

}  // namespace tandem::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // TANDEM_KERNELS_CPU_QUAD_DOT_INL_H_
