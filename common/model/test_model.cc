#include "common/model/test_model.h"

#include <stdlib.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <random>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/base/check.h"
#include "common/kernels/cpu/float16.h"

namespace tandem {
namespace {

class ModelWriter {
 public:
  explicit ModelWriter(const TestModelOptions& options)
      : options_(options), random_(options.seed) {}

  std::string Write() {
    Metadata();
    if (options_.more_metadata) options_.more_metadata(writer_);
    const TestModelOptions& o = options_;
    const int64_t q_dim = int64_t{o.num_heads} * o.head_dim;
    const int64_t kv_dim = int64_t{o.num_kv_heads} * o.head_dim;
    Matrix("token_embd.weight", o.embedding_type, o.vocab_size, o.hidden_dim, 8.0f);
    for (int32_t i = 0; i < o.num_layers; ++i) {
      const std::string prefix = absl::StrCat("blk.", i, ".");
      Vector(prefix + "attn_norm.weight", Norm(o.hidden_dim));
      Matrix(prefix + "attn_q.weight", o.weight_type, q_dim, o.hidden_dim, 1.2f);
      Matrix(prefix + "attn_k.weight", o.weight_type, kv_dim, o.hidden_dim, 1.2f);
      Matrix(prefix + "attn_v.weight", o.weight_type, kv_dim, o.hidden_dim, 1.0f);
      Matrix(prefix + "attn_output.weight", o.weight_type, o.hidden_dim, q_dim, 1.0f);
      Vector(prefix + "ffn_norm.weight", Norm(o.hidden_dim));
      Matrix(prefix + "ffn_gate.weight", o.weight_type, o.ffn_dim, o.hidden_dim, 1.0f);
      Matrix(prefix + "ffn_up.weight", o.weight_type, o.ffn_dim, o.hidden_dim, 1.0f);
      Matrix(prefix + "ffn_down.weight", o.weight_type, o.hidden_dim, o.ffn_dim, 1.0f);
    }
    Vector("output_norm.weight", Norm(o.hidden_dim));
    if (!o.tied_head) {
      Matrix("output.weight", o.embedding_type, o.vocab_size, o.hidden_dim, 1.0f);
    }
    if (!o.rope_factors.empty()) Vector("rope_freqs.weight", o.rope_factors);
    return writer_.Build();
  }

 private:
  void Metadata() {
    const TestModelOptions& o = options_;
    writer_.AddString("general.architecture", o.architecture);
    writer_.AddString("general.name", o.name);
    Number("block_count", o.num_layers);
    Number("context_length", 512);
    Number("embedding_length", o.hidden_dim);
    Number("feed_forward_length", o.ffn_dim);
    Number("attention.head_count", o.num_heads);
    Number("attention.head_count_kv", o.num_kv_heads);
    Number("attention.key_length", o.head_dim);
    Number("attention.value_length", o.head_dim);
    Number("rope.dimension_count", o.head_dim);
    Real("attention.layer_norm_rms_epsilon", 1e-5f);
    Real("rope.freq_base", o.rope_theta);
  }

  bool IsLeftOut(const std::string& key) const {
    return std::find(options_.left_out_keys.begin(), options_.left_out_keys.end(), key) !=
           options_.left_out_keys.end();
  }
  void Number(const std::string& key, int32_t value) {
    if (!IsLeftOut(key)) writer_.AddUint32("llama." + key, static_cast<uint32_t>(value));
  }
  void Real(const std::string& key, float value) {
    if (!IsLeftOut(key)) writer_.AddFloat("llama." + key, value);
  }

  std::vector<float> Norm(int64_t dim) {
    std::uniform_real_distribution<float> around_one(0.7f, 1.3f);
    std::vector<float> values(static_cast<size_t>(dim));
    for (float& value : values) value = around_one(random_);
    return values;
  }

  void Add(TestTensor tensor) {
    if (options_.edit_tensor && !options_.edit_tensor(tensor)) return;
    writer_.AddTensor(tensor.name, tensor.dtype, tensor.dims, tensor.data);
  }

  void Vector(const std::string& name, const std::vector<float>& values) {
    TestTensor tensor = {.name = name, .dims = {static_cast<int64_t>(values.size())}};
    tensor.data.resize(values.size() * sizeof(float));
    std::memcpy(tensor.data.data(), values.data(), tensor.data.size());
    Add(std::move(tensor));
  }

  // Weights that make numbers of about `gain` from numbers of about 1: as in a trained model,
  // scores and activations stay of order 1. Quantized types get random codes.
  void Matrix(const std::string& name, DType type, int64_t rows, int64_t cols, float gain) {
    const float scale = gain / std::sqrt(static_cast<float>(cols));
    TestTensor tensor = {.name = name, .dtype = type, .dims = {cols, rows}};
    const DTypeBlock block = BlockOf(type);
    tensor.data.resize(static_cast<size_t>(rows * cols / block.elements * block.bytes));
    if (block.elements == 1) {
      FillNumbers(type, scale, tensor.data);
    } else {
      for (size_t i = 0; i < tensor.data.size(); i += static_cast<size_t>(block.bytes)) {
        FillBlock(type, scale, tensor.data.data() + i);
      }
    }
    Add(std::move(tensor));
  }

  void FillNumbers(DType type, float scale, std::vector<uint8_t>& data) {
    std::normal_distribution<float> normal(0.0f, scale);
    const size_t bytes = static_cast<size_t>(BlockOf(type).bytes);
    for (size_t i = 0; i < data.size(); i += bytes) {
      const float value = normal(random_);
      uint32_t bits;
      std::memcpy(&bits, &value, sizeof(bits));
      if (type == DType::kF16) bits = cpu::F16FromFloat(value);
      if (type == DType::kBF16) bits >>= 16;
      std::memcpy(data.data() + i, &bits, bytes);
    }
  }

  // Where a block's f16 numbers are, and what they are so that codes of this type spread
  // as far as `scale` says.
  void FillBlock(DType type, float scale, uint8_t* block) {
    for (int32_t i = 0; i < BlockOf(type).bytes; ++i) block[i] = static_cast<uint8_t>(random_());
    const auto store = [&](int32_t offset, float value) {
      const uint16_t bits = cpu::F16FromFloat(value);
      std::memcpy(block + offset, &bits, sizeof(bits));
    };
    std::uniform_real_distribution<float> vary(0.7f, 1.3f);
    const float s = scale * vary(random_);
    switch (type) {
      case DType::kQ4_0:  // s * (code - 8)
        return store(0, s / 4.6f);
      case DType::kQ4_1:  // s * code + m
        store(0, s / 4.6f);
        return store(2, -7.5f * s / 4.6f);
      case DType::kQ8_0:  // s * code
        return store(0, s / 74.0f);
      case DType::kIQ4_NL:  // s * codebook[code]
        return store(0, s / 64.0f);
      case DType::kQ4_K:  // d * scale * code - dmin * min, scales and mins of 6 bits
      case DType::kQ5_K: {
        const float half = type == DType::kQ4_K ? 7.5f : 15.5f;  // of the range of codes
        // The bits that make all scales and mins lie in [32, 47].
        for (int32_t i = 4; i < 12; ++i) block[i] = static_cast<uint8_t>(0xa0 | (block[i] & 15));
        store(0, s / (half * 0.6f * 40.0f));
        return store(2, s / (0.6f * 40.0f));
      }
      case DType::kQ6_K:  // d * scale * (code - 32), scales of 8 bits with sign
        return store(208, s / (18.5f * 74.0f));
      default:
        TANDEM_CHECK(false);
    }
  }

  const TestModelOptions& options_;
  std::mt19937 random_;
  GgufWriter writer_;
};

}  // namespace

std::string TestModelBytes(const TestModelOptions& options) { return ModelWriter(options).Write(); }

std::unique_ptr<GgufFile> OpenTestModel(const TestModelOptions& options) {
  const char* folder = getenv("TMPDIR");
  std::string path = absl::StrCat(folder != nullptr ? folder : "/tmp", "/tandem_model_XXXXXX");
  const int fd = mkstemp(path.data());
  const std::string bytes = TestModelBytes(options);
  TANDEM_CHECK(fd >= 0);
  TANDEM_CHECK(write(fd, bytes.data(), bytes.size()) == static_cast<ssize_t>(bytes.size()));
  close(fd);
  absl::StatusOr<std::unique_ptr<GgufFile>> file = GgufFile::Open(path);
  unlink(path.c_str());
  TANDEM_CHECK(file.ok());
  return *std::move(file);
}

std::unique_ptr<GgufFile> OpenSmolLm2() {
  const char* path = getenv("TANDEM_TEST_MODEL");
  absl::StatusOr<std::unique_ptr<GgufFile>> file =
      GgufFile::Open(path != nullptr ? path : "build/models/smollm2-135m-instruct.q4_1.gguf");
  return file.ok() ? *std::move(file) : nullptr;
}

}  // namespace tandem
