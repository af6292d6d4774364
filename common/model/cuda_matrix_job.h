// One matrix on its way from tensors of a file to the CUDA kernels' layout.
#pragma once

#include <cstdint>
#include <vector>

#include "common/gguf/gguf.h"
#include "common/kernels/cpu/thread_pool.h"
#include "common/kernels/cuda/device_matrix.h"
#include "common/kernels/cuda/matrix_pack.h"
#include "common/model/cuda_format.h"

namespace tandem {

// A matrix on the device, made of the rows of one or more tensors.
struct MatrixJob {
  cuda::DeviceMatrix* target = nullptr;
  cuda::MatrixFormat format = cuda::MatrixFormat::kCode8;
  std::vector<const GgufTensor*> tensors;
  // 0: the tensors' rows follow each other; else they take turns, this many rows each.
  int64_t interleave = 0;
  int64_t num_rows = 0;
  int64_t num_cols = 0;
  int64_t offset = 0;  // in the arena: the chunks, then the row scales

  int64_t chunk_bytes() const { return cuda::MatrixBytes(format, num_rows, num_cols); }
  int64_t row_scale_bytes() const {
    return format == cuda::MatrixFormat::kNf4 ? cuda::PaddedRows(num_rows) * 8 : 0;
  }
  int64_t packed_bytes() const { return chunk_bytes() + row_scale_bytes(); }
  // The packed bytes, in host memory.
  std::vector<uint8_t> Pack(cpu::ThreadPool& pool) const;
  void SetCodebook(cuda::DeviceMatrix& matrix) const;

  int64_t stored_bytes() const {
    int64_t bytes = 0;
    for (const GgufTensor* tensor : tensors) bytes += static_cast<int64_t>(tensor->data.size());
    return bytes;
  }
};

}  // namespace tandem
