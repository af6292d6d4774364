#include "common/model/cuda_weights.h"

#include <cuda_runtime_api.h>

#include <algorithm>
#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/base/status_macros.h"
#include "common/device/cuda_status.h"
#include "common/kernels/cpu/block_decoder.h"
#include "common/kernels/cpu/thread_pool.h"
#include "common/kernels/cuda/matrix_pack.h"
#include "common/model/weights.h"

namespace tandem {
namespace {

using cuda::DeviceMatrix;
using cuda::MatrixFormat;

constexpr int64_t kAlignment = 256;

cpu::SourceType SourceOf(DType type) { return static_cast<cpu::SourceType>(type); }

// A matrix on the device, made of the rows of one or more tensors.
struct MatrixJob {
  DeviceMatrix* target = nullptr;
  MatrixFormat format = MatrixFormat::kCode8;
  std::vector<const GgufTensor*> tensors;
  // 0: the tensors' rows follow each other; else they take turns, this many rows each.
  int64_t interleave = 0;
  int64_t num_rows = 0;
  int64_t num_cols = 0;
  int64_t offset = 0;  // in the arena: the chunks, then the row scales

  int64_t chunk_bytes() const { return cuda::MatrixBytes(format, num_rows, num_cols); }
  int64_t row_scale_bytes() const {
    return format == MatrixFormat::kNf4 ? cuda::PaddedRows(num_rows) * 8 : 0;
  }
  int64_t stored_bytes() const {
    int64_t bytes = 0;
    for (const GgufTensor* tensor : tensors) bytes += static_cast<int64_t>(tensor->data.size());
    return bytes;
  }
};

struct VectorJob {
  const float** target = nullptr;
  std::vector<float> values;
  int64_t offset = 0;
};

// Where output row `row` of a job comes from: a tensor and a row of it.
std::pair<const GgufTensor*, int64_t> RowOf(const MatrixJob& job, int64_t row) {
  const auto count = static_cast<int64_t>(job.tensors.size());
  if (job.interleave > 0) {
    const int64_t round = row / (job.interleave * count);
    const int64_t rest = row % (job.interleave * count);
    return {job.tensors[rest / job.interleave], round * job.interleave + rest % job.interleave};
  }
  for (const GgufTensor* tensor : job.tensors) {
    const int64_t rows = tensor->num_elements() / tensor->dims[0];
    if (row < rows) return {tensor, row};
    row -= rows;
  }
  return {nullptr, 0};
}

const uint8_t* RowData(const GgufTensor& tensor, int64_t row) {
  const int64_t rows = tensor.num_elements() / tensor.dims[0];
  return tensor.data.data() + row * (static_cast<int64_t>(tensor.data.size()) / rows);
}

// The sixteen rows of a tile, on their way to PackTileRows.
struct TileRows {
  explicit TileRows(int64_t padded_cols)
      : codes(16 * padded_cols),
        scales(16 * padded_cols / 32),
        minimums(16 * padded_cols / 32),
        floats(padded_cols),
        row_scales(32) {}
  std::vector<int8_t> codes;
  std::vector<float> scales;
  std::vector<float> minimums;
  std::vector<float> floats;
  std::vector<float> row_scales;
};

void FillRow(const MatrixJob& job, int64_t row, int64_t slot, TileRows& tile) {
  const int64_t padded_cols = cuda::PaddedCols(job.num_cols);
  int8_t* codes = tile.codes.data() + slot * padded_cols;
  const auto [tensor, source_row] = RowOf(job, row);
  const uint8_t* data = RowData(*tensor, source_row);
  const cpu::SourceType type = SourceOf(tensor->dtype);
  const bool is_direct = CudaFormatOf(tensor->dtype, false) == job.format &&
                         tensor->dtype != DType::kQ6_K && tensor->dtype != DType::kQ5_K &&
                         cpu::SourceBlockOf(type).elements > 1;
  float* scales =
      tile.scales.data() + slot * (padded_cols / (job.format == MatrixFormat::kNf4 ? 64 : 32));
  float* minimums = tile.minimums.data() + slot * (padded_cols / 32);
  if (is_direct) {
    for (int64_t block = 0; block < job.num_cols / 32; ++block) {
      const cpu::DecodedBlock decoded = cpu::DecodeBlock(type, data, block);
      std::memcpy(codes + block * 32, decoded.codes, 32);
      scales[block] = decoded.scale;
      minimums[block] = decoded.min;
    }
    return;
  }
  for (int64_t block = 0; block < job.num_cols / 32; ++block) {
    cpu::DequantizeBlock(type, data, block, tile.floats.data() + block * 32);
  }
  if (job.format == MatrixFormat::kNf4) {
    cuda::QuantizeNf4Row(tile.floats.data(), job.num_cols, codes, scales,
                         tile.row_scales.data() + 2 * slot);
  } else {
    cuda::QuantizeCode8Row(tile.floats.data(), job.num_cols, codes, scales);
  }
}

// The packed bytes of a job, in host memory.
std::vector<uint8_t> Pack(const MatrixJob& job, cpu::ThreadPool& pool) {
  const int64_t padded_cols = cuda::PaddedCols(job.num_cols);
  const int64_t row_tiles = cuda::PaddedRows(job.num_rows) / 16;
  const int64_t tile_bytes = job.chunk_bytes() / row_tiles;
  std::vector<uint8_t> bytes(static_cast<size_t>(job.chunk_bytes() + job.row_scale_bytes()));
  pool.Run(static_cast<int32_t>(row_tiles), [&](int32_t row_tile, int32_t) {
    TileRows tile(padded_cols);
    const int64_t rows = std::min<int64_t>(16, job.num_rows - int64_t{row_tile} * 16);
    for (int64_t slot = 0; slot < rows; ++slot) {
      FillRow(job, int64_t{row_tile} * 16 + slot, slot, tile);
    }
    cuda::PackTileRows(job.format, padded_cols,
                       {.codes = tile.codes.data(),
                        .scales = tile.scales.data(),
                        .minimums = tile.minimums.data()},
                       bytes.data() + row_tile * tile_bytes);
    if (job.format == MatrixFormat::kNf4) {
      std::memcpy(bytes.data() + job.chunk_bytes() + int64_t{row_tile} * 16 * 8,
                  tile.row_scales.data(), 16 * 8);
    }
  });
  return bytes;
}

void SetCodebook(const MatrixJob& job, DeviceMatrix& matrix) {
  for (int i = 0; i < 16; ++i) {
    switch (job.format) {
      case MatrixFormat::kNf4:
        matrix.codebook[i] = cuda::kNf4Codebook[i];
        break;
      case MatrixFormat::kCode4:
        matrix.codebook[i] = job.tensors[0]->dtype == DType::kIQ4_NL ? cpu::kIq4NlCodebook[i]
                                                                     : static_cast<int8_t>(i - 8);
        break;
      default:
        matrix.codebook[i] = static_cast<int8_t>(i);
    }
  }
}

// What is to be uploaded, in order, and how many bytes it takes.
class Plan {
 public:
  Plan(const GgufFile& file, const ModelConfig& config, const CudaWeightsOptions& options)
      : file_(file), config_(config), options_(options) {}

  void AddAll(CudaWeights& weights);
  absl::StatusOr<DeviceBuffer> Upload(CudaWeights& weights);

 private:
  const GgufTensor* Tensor(const std::string& name) { return file_.FindTensor(name); }
  MatrixFormat FormatOf(const GgufTensor* tensor) const {
    return CudaFormatOf(tensor->dtype, options_.quantize_to_nf4);
  }
  void AddMatrix(std::vector<const GgufTensor*> tensors, int64_t interleave, DeviceMatrix* target);
  void AddVector(std::vector<float> values, const float** target) {
    vectors_.push_back({.target = target, .values = std::move(values)});
  }
  void AddNorm(const std::string& name, const float** target);
  void AddLayer(int32_t index, CudaLayerWeights& layer);

  const GgufFile& file_;
  const ModelConfig& config_;
  const CudaWeightsOptions& options_;
  std::vector<MatrixJob> matrices_;
  std::vector<VectorJob> vectors_;
};

void Plan::AddMatrix(std::vector<const GgufTensor*> tensors, int64_t interleave,
                     DeviceMatrix* target) {
  MatrixJob job = {.target = target, .tensors = std::move(tensors), .interleave = interleave};
  job.format = FormatOf(job.tensors[0]);
  job.num_cols = job.tensors[0]->dims[0];
  for (const GgufTensor* tensor : job.tensors) {
    job.num_rows += tensor->num_elements() / tensor->dims[0];
    // Tensors of different types meet at 8 bits.
    if (tensor->dtype != job.tensors[0]->dtype) job.format = MatrixFormat::kCode8;
  }
  matrices_.push_back(std::move(job));
}

void Plan::AddNorm(const std::string& name, const float** target) {
  const GgufTensor* tensor = Tensor(name);
  std::vector<float> values(static_cast<size_t>(config_.hidden_dim));
  cpu::Dequantize(SourceOf(tensor->dtype), tensor->data.data(), config_.hidden_dim, values.data());
  AddVector(std::move(values), target);
}

void Plan::AddLayer(int32_t index, CudaLayerWeights& layer) {
  const std::string prefix = absl::StrCat("blk.", index, ".");
  AddNorm(prefix + "attn_norm.weight", &layer.attention_norm);
  AddNorm(prefix + "ffn_norm.weight", &layer.ffn_norm);
  const std::vector<const GgufTensor*> qkv = {Tensor(prefix + "attn_q.weight"),
                                              Tensor(prefix + "attn_k.weight"),
                                              Tensor(prefix + "attn_v.weight")};
  const bool is_one_type = qkv[0]->dtype == qkv[1]->dtype && qkv[0]->dtype == qkv[2]->dtype;
  layer.qkv.resize(is_one_type ? 1 : 3);
  if (is_one_type) {
    AddMatrix(qkv, 0, &layer.qkv[0].matrix);
  } else {
    int64_t first_col = 0;
    for (size_t i = 0; i < 3; ++i) {
      layer.qkv[i].first_col = static_cast<int32_t>(first_col);
      AddMatrix({qkv[i]}, 0, &layer.qkv[i].matrix);
      first_col += qkv[i]->num_elements() / qkv[i]->dims[0];
    }
  }
  AddMatrix({Tensor(prefix + "attn_output.weight")}, 0, &layer.attention_output);
  AddMatrix({Tensor(prefix + "ffn_gate.weight"), Tensor(prefix + "ffn_up.weight")}, 32,
            &layer.gate_up);
  AddMatrix({Tensor(prefix + "ffn_down.weight")}, 0, &layer.down);
}

void Plan::AddAll(CudaWeights& weights) {
  AddMatrix({Tensor("token_embd.weight")}, 0, &weights.embedding);
  if (!config_.tied_head) AddMatrix({Tensor("output.weight")}, 0, &weights.head);
  AddNorm("output_norm.weight", &weights.output_norm);
  AddVector(config_.rope_inv_freq, &weights.rope_inv_freq);
  weights.layers.resize(static_cast<size_t>(config_.num_layers));
  for (int32_t i = 0; i < config_.num_layers; ++i) AddLayer(i, weights.layers[i]);
}

absl::StatusOr<DeviceBuffer> Plan::Upload(CudaWeights& weights) {
  int64_t bytes = 0;
  int64_t total_bytes = 0;
  const auto reserve = [&](int64_t count) {
    const int64_t offset = bytes;
    bytes += (count + kAlignment - 1) / kAlignment * kAlignment;
    return offset;
  };
  for (MatrixJob& job : matrices_) {
    job.offset = reserve(job.chunk_bytes() + job.row_scale_bytes());
    total_bytes += job.stored_bytes();
  }
  for (VectorJob& job : vectors_) {
    job.offset = reserve(static_cast<int64_t>(job.values.size() * sizeof(float)));
  }
  ASSIGN_OR_RETURN(DeviceBuffer memory,
                   DeviceBuffer::Allocate(options_.ledger, MemoryKind::kWeights, bytes));
  cpu::ThreadPool pool(options_.num_threads);
  int64_t done_bytes = 0;
  for (const MatrixJob& job : matrices_) {
    const std::vector<uint8_t> packed = Pack(job, pool);
    RETURN_IF_ERROR(CudaStatus(cudaMemcpy(memory.data() + job.offset, packed.data(), packed.size(),
                                          cudaMemcpyHostToDevice),
                               "uploading weights"));
    DeviceMatrix& matrix = *job.target;
    matrix = {.format = job.format,
              .num_rows = static_cast<int32_t>(job.num_rows),
              .num_cols = static_cast<int32_t>(job.num_cols),
              .num_chunks = static_cast<int32_t>(cuda::PaddedCols(job.num_cols) / cuda::kChunkCols),
              .chunks = memory.data() + job.offset};
    if (job.format == MatrixFormat::kNf4) {
      matrix.row_scales =
          reinterpret_cast<const float*>(memory.data() + job.offset + job.chunk_bytes());
    }
    SetCodebook(job, matrix);
    done_bytes += job.stored_bytes();
    if (options_.progress) options_.progress(done_bytes, total_bytes);
  }
  for (const VectorJob& job : vectors_) {
    RETURN_IF_ERROR(
        CudaStatus(cudaMemcpy(memory.data() + job.offset, job.values.data(),
                              job.values.size() * sizeof(float), cudaMemcpyHostToDevice),
                   "uploading weights"));
    *job.target = reinterpret_cast<const float*>(memory.data() + job.offset);
  }
  if (config_.tied_head) weights.head = weights.embedding;
  return memory;
}

absl::Status CheckShape(const ModelConfig& config) {
  const bool has_head_dim = config.head_dim == 64 || config.head_dim == 128;
  if (has_head_dim && config.hidden_dim % 32 == 0 && config.ffn_dim % 32 == 0 &&
      config.num_heads / config.num_kv_heads <= 32) {
    return absl::OkStatus();
  }
  return absl::InvalidArgumentError(
      absl::StrCat(config.name,
                   ": the CUDA backend takes heads of 64 or 128, at most 32 of them to a KV head, "
                   "and widths in multiples of 32; this model has heads of ",
                   config.head_dim, ", ", config.num_heads, " to ", config.num_kv_heads,
                   ", hidden ", config.hidden_dim, ", ffn ", config.ffn_dim, ": use --device cpu"));
}

}  // namespace

MatrixFormat CudaFormatOf(DType stored, bool quantize_to_nf4) {
  switch (stored) {
    case DType::kQ4_0:
    case DType::kIQ4_NL:
      return MatrixFormat::kCode4;
    case DType::kQ4_1:
    case DType::kQ4_K:
      return MatrixFormat::kAffine4;
    case DType::kF32:
    case DType::kF16:
    case DType::kBF16:
      return quantize_to_nf4 ? MatrixFormat::kNf4 : MatrixFormat::kCode8;
    default:
      return MatrixFormat::kCode8;
  }
}

absl::StatusOr<CudaWeights> LoadCudaWeights(const GgufFile& file, const ModelConfig& config,
                                            const CudaWeightsOptions& options) {
  RETURN_IF_ERROR(PlanWeights(file, config).status());  // all tensors are there, and fit
  RETURN_IF_ERROR(CheckShape(config));
  CudaWeights weights;
  Plan plan(file, config, options);
  plan.AddAll(weights);
  ASSIGN_OR_RETURN(weights.memory, plan.Upload(weights));
  return weights;
}

}  // namespace tandem
