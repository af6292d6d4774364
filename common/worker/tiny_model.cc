#include "common/worker/tiny_model.h"

#include <stdlib.h>
#include <unistd.h>

#include <limits>
#include <random>
#include <vector>

#include "absl/strings/str_cat.h"
#include "common/base/check.h"
#include "common/gguf/gguf_writer.h"

namespace tandem::worker {
namespace {

constexpr int32_t kHidden = 64;
constexpr int32_t kHeads = 2;
constexpr int32_t kHeadDim = 32;
constexpr int32_t kKvHeads = 1;
constexpr int32_t kFfn = 96;

class TinyModelWriter {
 public:
  explicit TinyModelWriter(const TinyModelOptions& options)
      : options_(options), random_(options.seed) {}

  std::string Write() {
    Metadata();
    Matrix("token_embd.weight", options_.vocab_size, kHidden, 1.0f);
    for (int32_t layer = 0; layer < options_.num_layers; ++layer) {
      const std::string prefix = absl::StrCat("blk.", layer, ".");
      Norm(prefix + "attn_norm.weight");
      Matrix(prefix + "attn_q.weight", kHeads * kHeadDim, kHidden, 0.3f);
      Matrix(prefix + "attn_k.weight", kKvHeads * kHeadDim, kHidden, 0.3f);
      Matrix(prefix + "attn_v.weight", kKvHeads * kHeadDim, kHidden, 0.3f);
      Matrix(prefix + "attn_output.weight", kHidden, kHeads * kHeadDim, 0.3f);
      Norm(prefix + "ffn_norm.weight");
      Matrix(prefix + "ffn_gate.weight", kFfn, kHidden, 0.2f);
      Matrix(prefix + "ffn_up.weight", kFfn, kHidden, 0.2f);
      Matrix(prefix + "ffn_down.weight", kHidden, kFfn, 0.2f);
    }
    Norm("output_norm.weight");
    return writer_.Build();
  }

 private:
  void Metadata() {
    writer_.AddString("general.architecture", "llama");
    writer_.AddString("general.name", "tiny");
    writer_.AddUint32("llama.block_count", options_.num_layers);
    writer_.AddUint32("llama.embedding_length", kHidden);
    writer_.AddUint32("llama.feed_forward_length", kFfn);
    writer_.AddUint32("llama.attention.head_count", kHeads);
    writer_.AddUint32("llama.attention.head_count_kv", kKvHeads);
    writer_.AddUint32("llama.context_length", 512);
    writer_.AddFloat("llama.attention.layer_norm_rms_epsilon", 1e-5f);
    writer_.AddUint32("llama.vocab_size", options_.vocab_size);
  }
  void Matrix(const std::string& name, int64_t rows, int64_t cols, float scale) {
    std::normal_distribution<float> normal(0.0f, scale);
    std::vector<float> values(rows * cols);
    for (float& value : values) value = normal(random_);
    writer_.AddTensor(name, {cols, rows}, values);
  }
  void Norm(const std::string& name) {
    std::vector<float> values(kHidden, 1.0f);
    if (options_.is_damaged && name == "output_norm.weight") {
      values[3] = std::numeric_limits<float>::quiet_NaN();
    }
    writer_.AddTensor(name, {kHidden}, values);
  }

  TinyModelOptions options_;
  std::mt19937 random_;
  GgufWriter writer_;
};

}  // namespace

std::string TinyModelBytes(const TinyModelOptions& options) {
  return TinyModelWriter(options).Write();
}

std::unique_ptr<Executor> LoadTinyModel(const TinyModelOptions& model,
                                        const CpuExecutorOptions& options) {
  char path[] = "/tmp/tandem_tiny_model_XXXXXX";
  const int fd = mkstemp(path);
  const std::string bytes = TinyModelBytes(model);
  TANDEM_CHECK(fd >= 0);
  TANDEM_CHECK(write(fd, bytes.data(), bytes.size()) == static_cast<ssize_t>(bytes.size()));
  close(fd);
  const auto file = GgufFile::Open(path);
  unlink(path);
  TANDEM_CHECK(file.ok());
  auto executor = CreateCpuExecutor(**file, options);
  TANDEM_CHECK(executor.ok());
  return *std::move(executor);
}

}  // namespace tandem::worker
