#include "common/model/reference_forward.h"

#include <algorithm>
#include <cmath>
#include <string>

#include "absl/strings/str_cat.h"
#include "common/base/check.h"
#include "common/kernels/cpu/packed_matrix.h"

namespace tandem {
namespace {

using Rows = std::vector<std::vector<double>>;

class Reference {
 public:
  Reference(const GgufFile& file, const ModelConfig& config) : file_(file), config_(config) {}

  std::vector<double> Run(absl::Span<const int32_t> token_ids) {
    const std::vector<float> embedding = Load("token_embd.weight");
    Rows x;
    for (const int32_t id : token_ids) {
      const auto row = embedding.begin() + int64_t{id} * config_.hidden_dim;
      x.emplace_back(row, row + config_.hidden_dim);
    }
    for (int32_t i = 0; i < config_.num_layers; ++i) {
      const std::string layer = absl::StrCat("blk.", i, ".");
      Add(x, Attention(layer, Norm(x, layer + "attn_norm.weight")));
      Add(x, FeedForward(layer, Norm(x, layer + "ffn_norm.weight")));
    }
    const Rows logits = Multiply(Norm(x, "output_norm.weight"),
                                 config_.tied_head ? "token_embd.weight" : "output.weight");
    std::vector<double> flat;
    for (const auto& row : logits) flat.insert(flat.end(), row.begin(), row.end());
    return flat;
  }

 private:
  std::vector<float> Load(const std::string& name) const {
    const GgufTensor* tensor = file_.FindTensor(name);
    TANDEM_CHECK(tensor != nullptr);
    std::vector<float> values(static_cast<size_t>(tensor->num_elements()));
    cpu::Dequantize(static_cast<cpu::SourceType>(tensor->dtype), tensor->data.data(),
                    tensor->num_elements(), values.data());
    return values;
  }

  Rows Multiply(const Rows& x, const std::string& name) const {
    const std::vector<float> weight = Load(name);
    const size_t num_cols = x[0].size();
    Rows y(x.size(), std::vector<double>(weight.size() / num_cols));
    for (size_t r = 0; r < x.size(); ++r) {
      for (size_t i = 0; i < y[r].size(); ++i) {
        for (size_t c = 0; c < num_cols; ++c) y[r][i] += x[r][c] * weight[i * num_cols + c];
      }
    }
    return y;
  }

  Rows Norm(const Rows& x, const std::string& name) const {
    const std::vector<float> weight = Load(name);
    Rows y = x;
    for (auto& row : y) {
      double sum = 0.0;
      for (const double value : row) sum += value * value;
      const double root = std::sqrt(sum / static_cast<double>(row.size()) + config_.norm_epsilon);
      for (size_t i = 0; i < row.size(); ++i) row[i] = row[i] / root * weight[i];
    }
    return y;
  }

  static void Add(Rows& x, const Rows& y) {
    for (size_t r = 0; r < x.size(); ++r) {
      for (size_t i = 0; i < x[r].size(); ++i) x[r][i] += y[r][i];
    }
  }

  void Rope(Rows& x, int32_t num_heads) const {
    for (size_t position = 0; position < x.size(); ++position) {
      for (int32_t head = 0; head < num_heads; ++head) {
        double* pairs = x[position].data() + int64_t{head} * config_.head_dim;
        for (int32_t i = 0; i < config_.rope_dim / 2; ++i) {
          const double angle = static_cast<double>(position) * config_.rope_inv_freq[i];
          const double a = pairs[2 * i];
          const double b = pairs[2 * i + 1];
          pairs[2 * i] = a * std::cos(angle) - b * std::sin(angle);
          pairs[2 * i + 1] = a * std::sin(angle) + b * std::cos(angle);
        }
      }
    }
  }

  Rows Attention(const std::string& layer, const Rows& x) const {
    Rows q = Multiply(x, layer + "attn_q.weight");
    Rows k = Multiply(x, layer + "attn_k.weight");
    const Rows v = Multiply(x, layer + "attn_v.weight");
    Rope(q, config_.num_heads);
    Rope(k, config_.num_kv_heads);
    const int32_t dim = config_.head_dim;
    Rows out(x.size(), std::vector<double>(q[0].size()));
    for (size_t r = 0; r < x.size(); ++r) {
      for (int32_t head = 0; head < config_.num_heads; ++head) {
        const int32_t kv = head / (config_.num_heads / config_.num_kv_heads) * dim;
        std::vector<double> weights(r + 1);
        for (size_t p = 0; p <= r; ++p) {
          for (int32_t i = 0; i < dim; ++i) weights[p] += q[r][head * dim + i] * k[p][kv + i];
          weights[p] /= std::sqrt(static_cast<double>(dim));
        }
        const double max = *std::max_element(weights.begin(), weights.end());
        double sum = 0.0;
        for (double& weight : weights) sum += weight = std::exp(weight - max);
        for (size_t p = 0; p <= r; ++p) {
          for (int32_t i = 0; i < dim; ++i) {
            out[r][head * dim + i] += weights[p] / sum * v[p][kv + i];
          }
        }
      }
    }
    return Multiply(out, layer + "attn_output.weight");
  }

  Rows FeedForward(const std::string& layer, const Rows& x) const {
    Rows gate = Multiply(x, layer + "ffn_gate.weight");
    const Rows up = Multiply(x, layer + "ffn_up.weight");
    for (size_t r = 0; r < x.size(); ++r) {
      for (size_t i = 0; i < gate[r].size(); ++i) {
        gate[r][i] = gate[r][i] / (1 + std::exp(-gate[r][i])) * up[r][i];
      }
    }
    return Multiply(gate, layer + "ffn_down.weight");
  }

  const GgufFile& file_;
  const ModelConfig& config_;
};

}  // namespace

std::vector<double> ReferenceForward(const GgufFile& file, const ModelConfig& config,
                                     absl::Span<const int32_t> token_ids) {
  return Reference(file, config).Run(token_ids);
}

}  // namespace tandem
