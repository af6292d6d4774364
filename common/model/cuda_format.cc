#include "common/model/cuda_format.h"

#include "common/base/status_macros.h"
#include "common/model/weights.h"

namespace tandem {

using cuda::MatrixFormat;

MatrixFormat CudaFormatOf(DType stored, bool quantize_to_nf4) {
  switch (stored) {
    case DType::kQ4_0:
      return MatrixFormat::kLinear4;
    case DType::kIQ4_NL:
      return MatrixFormat::kCode4;
    case DType::kQ4_1:
    case DType::kQ4_K:
      return MatrixFormat::kAffine4;
    case DType::kNF4:
      return MatrixFormat::kNf4;
    case DType::kF32:
    case DType::kF16:
    case DType::kBF16:
      return quantize_to_nf4 ? MatrixFormat::kNf4 : MatrixFormat::kCode8;
    default:
      return MatrixFormat::kCode8;
  }
}

absl::StatusOr<int64_t> CudaWeightBytes(const GgufFile& file, const ModelConfig& config,
                                        const CudaWeightChoices& choices) {
  ASSIGN_OR_RETURN(const std::vector<TensorPlan> tensors, PlanWeights(file, config));
  int64_t bytes = 0;
  for (const TensorPlan& tensor : tensors) {
    if (!choices.IsOnDevice(tensor.name, config.tied_head)) continue;
    if (tensor.num_rows == 1) {  // a norm
      bytes += tensor.num_cols * int64_t{sizeof(float)};
      continue;
    }
    const MatrixFormat format = CudaFormatOf(tensor.stored, choices.quantize_to_nf4);
    bytes += cuda::MatrixBytes(format, tensor.num_rows, tensor.num_cols);
    if (format == MatrixFormat::kNf4) bytes += cuda::PaddedRows(tensor.num_rows) * 8;
  }
  return bytes;
}

}  // namespace tandem
