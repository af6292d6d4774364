#include <cuda_runtime.h>

#include <algorithm>
#include <cstdint>
#include <vector>

#include "bench/read_bandwidth.h"

namespace tandem {
namespace {

__global__ void ReadKernel(const uint4* data, int64_t count, uint32_t* sink) {
  uint32_t sum = 0;
  const int64_t stride = int64_t{gridDim.x} * blockDim.x;
  for (int64_t i = int64_t{blockIdx.x} * blockDim.x + threadIdx.x; i < count; i += stride) {
    uint4 value;
    asm volatile("ld.global.nc.L1::no_allocate.v4.u32 {%0,%1,%2,%3}, [%4];"
                 : "=r"(value.x), "=r"(value.y), "=r"(value.z), "=r"(value.w)
                 : "l"(data + i));
    sum ^= value.x ^ value.y ^ value.z ^ value.w;
  }
  if (sum == 0x12345678u) *sink = sum;
}

}  // namespace

double ReadBandwidth() {
  constexpr int64_t kBytes = int64_t{4} << 30;
  void* data = nullptr;
  void* sink = nullptr;
  if (cudaMalloc(&data, kBytes) != cudaSuccess || cudaMalloc(&sink, 4) != cudaSuccess) return 0.0;
  cudaMemset(data, 1, kBytes);
  cudaEvent_t begin, end;
  cudaEventCreate(&begin);
  cudaEventCreate(&end);
  std::vector<double> rates;
  for (int turn = 0; turn < 9; ++turn) {
    cudaEventRecord(begin);
    ReadKernel<<<132 * 16, 512>>>(static_cast<const uint4*>(data), kBytes / 16,
                                  static_cast<uint32_t*>(sink));
    cudaEventRecord(end);
    cudaEventSynchronize(end);
    float milliseconds = 0.0f;
    cudaEventElapsedTime(&milliseconds, begin, end);
    if (turn > 1) rates.push_back(kBytes / (milliseconds * 1e-3));
  }
  cudaFree(data);
  cudaFree(sink);
  cudaEventDestroy(begin);
  cudaEventDestroy(end);
  std::nth_element(rates.begin(), rates.begin() + rates.size() / 2, rates.end());
  return rates[rates.size() / 2];
}

}  // namespace tandem
