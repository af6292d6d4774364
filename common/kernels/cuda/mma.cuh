// Tensor-core instructions, the same arithmetic on every architecture from sm_75 on, and
// what surrounds them: loads that leave caches alone, and the order between launches.
#pragma once

#include <cuda_fp16.h>

#include <cstdint>
#include <type_traits>

namespace tandem::cuda {

// d += a (16 rows, depth 32) * b (depth 32, 8 columns), int8. Lane 4 * g + t holds a[0], a[2]:
// row g, a[1], a[3]: row g + 8, b: column g, d[0], d[1]: row g, columns 2 * t and 2 * t + 1,
// d[2], d[3]: row g + 8. Any order of the depth serves that is the same for a and b.
__device__ __forceinline__ void MmaInt8(int32_t (&d)[4], const uint32_t (&a)[4], uint32_t b0,
                                        uint32_t b1) {
#if __CUDA_ARCH__ >= 800
  asm("mma.sync.aligned.m16n8k32.row.col.s32.s8.s8.s32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, "
      "{%0,%1,%2,%3};"
      : "+r"(d[0]), "+r"(d[1]), "+r"(d[2]), "+r"(d[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
#else
  const uint32_t b[2] = {b0, b1};
#pragma unroll
  for (int half = 0; half < 2; ++half) {
#pragma unroll
    for (int row_half = 0; row_half < 2; ++row_half) {
      asm("mma.sync.aligned.m8n8k16.row.col.s32.s8.s8.s32 {%0,%1}, {%2}, {%3}, {%0,%1};"
          : "+r"(d[2 * row_half]), "+r"(d[2 * row_half + 1])
          : "r"(a[2 * half + row_half]), "r"(b[half]));
    }
  }
#endif
}

// d += a (16 rows, depth 16) * b (depth 16, 8 columns), f16 with float sums; layout as above.
__device__ __forceinline__ void MmaHalf(float (&d)[4], const uint32_t (&a)[4], uint32_t b0,
                                        uint32_t b1) {
#if __CUDA_ARCH__ >= 800
  asm("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, "
      "{%0,%1,%2,%3};"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
#else
  asm("mma.sync.aligned.m16n8k8.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5}, {%6}, "
      "{%0,%1,%2,%3};"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
      : "r"(a[0]), "r"(a[1]), "r"(b0));
  asm("mma.sync.aligned.m16n8k8.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5}, {%6}, "
      "{%0,%1,%2,%3};"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
      : "r"(a[2]), "r"(a[3]), "r"(b1));
#endif
}

// Weights are read once a step: they shall not push activations out of the first cache.
__device__ __forceinline__ uint4 LoadStreaming(const uint4* address) {
  uint4 value;
  asm volatile("ld.global.nc.L1::no_allocate.v4.u32 {%0,%1,%2,%3}, [%4];"
               : "=r"(value.x), "=r"(value.y), "=r"(value.z), "=r"(value.w)
               : "l"(address));
  return value;
}

// Programmatic dependent launch: the next kernel's blocks may start (they fetch weights,
// which nothing writes), and what the previous kernel wrote is there. Nothing before sm_90,
// where launches follow each other.
__device__ __forceinline__ void LetNextKernelStart() {
#if __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.launch_dependents;" ::: "memory");
#endif
}
__device__ __forceinline__ void WaitForPreviousKernel() {
#if __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
}

// Begins to copy 8 or 16 bytes from global to shared memory; before sm_80 it is done at once.
template <int kBytes>
__device__ __forceinline__ void CopyUnit(void* to, const void* from) {
  static_assert(kBytes == 8 || kBytes == 16);
#if __CUDA_ARCH__ >= 800
  const auto target = static_cast<uint32_t>(__cvta_generic_to_shared(to));
  if constexpr (kBytes == 16) {
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(target), "l"(from) : "memory");
  } else {
    asm volatile("cp.async.ca.shared.global [%0], [%1], 8;" ::"r"(target), "l"(from) : "memory");
  }
#else
  using Unit = std::conditional_t<kBytes == 16, uint4, uint2>;
  *static_cast<Unit*>(to) = *static_cast<const Unit*>(from);
#endif
}
// All copies of this thread have arrived.
__device__ __forceinline__ void WaitForCopies() {
#if __CUDA_ARCH__ >= 800
  asm volatile("cp.async.wait_all;" ::: "memory");
#endif
}

// Brings memory to the second cache. `bytes`: a multiple of 16. One thread calls it.
__device__ __forceinline__ void PrefetchToL2(const uint8_t* address, int bytes) {
#if __CUDA_ARCH__ >= 900
  asm volatile("cp.async.bulk.prefetch.L2.global [%0], %1;" ::"l"(address), "r"(bytes) : "memory");
#endif
}

__device__ __forceinline__ uint32_t HalfPair(float low, float high) {
  const __half2 pair = __floats2half2_rn(low, high);
  return *reinterpret_cast<const uint32_t*>(&pair);
}
__device__ __forceinline__ float2 FloatPair(uint32_t halves) {
  return __half22float2(*reinterpret_cast<const __half2*>(&halves));
}

}  // namespace tandem::cuda
