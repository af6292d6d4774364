#include <memory>

#include "common/kernels/cpu/matmul.h"

namespace tandem::cpu {

void MatMulRef(const Activations& x, const MatMulArgs& args) {
  const PackedMatrix& weight = *args.weight;
  const bool is_quantized = weight.format <= PackedFormat::kQ8;
  const int64_t num_cols = weight.num_cols;
  const auto row_weights = std::make_unique<float[]>(static_cast<size_t>(num_cols));
  for (int64_t output = 0; output < weight.num_rows; ++output) {
    UnpackRow(weight, output, row_weights.get());
    for (int64_t row = 0; row < x.num_rows(); ++row) {
      double sum = 0.0;
      for (int64_t col = 0; col < num_cols; ++col) {
        double value = x.floats()[row * num_cols + col];
        if (is_quantized) {
          const ActivationBlock& block = x.block(row, col / 32);
          value = double{block.scale} * block.codes[col % 32];
        }
        sum += value * row_weights[col];
      }
      float& y = args.y[row * args.y_stride + output];
      y = static_cast<float>(sum) + (args.accumulate ? y : 0.0f);
    }
  }
}

}  // namespace tandem::cpu
