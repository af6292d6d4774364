// Folders of safetensors as models: equal to transformers, and unsound ones refused. Made by
// tools/make_safetensors_golden.py.
#include "common/safetensors/checkpoint.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <functional>
#include <string>

#include "common/model/executor_driver.h"
#include "common/model/reference_forward.h"
#include "nlohmann/json.hpp"

namespace tandem {
namespace {

using nlohmann::json;

constexpr char kTestdata[] = "common/safetensors/testdata/";

std::string ReadAll(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

// The largest difference from the logits of transformers, by the largest of them: of the
// specification in double, and of the executor.
struct Difference {
  double reference = 0.0;
  double executor = 0.0;  // whose K and V are f16
};

Difference DifferenceFromGolden(const std::string& name) {
  const std::string folder = kTestdata + name;
  const json golden = json::parse(ReadAll(folder + "/golden.json"));
  const auto file = OpenModel(folder).value();
  const auto ids = golden["token_ids"].get<std::vector<int32_t>>();
  const ModelConfig config = ModelConfigFromGguf(*file).value();
  const std::vector<double> reference = ReferenceForward(*file, config, ids);
  ExecutorDriver driver(MakeTestExecutor(*file, KvType::kF16, /*num_threads=*/1,
                                         /*max_positions=*/64, WeightPrecision::kFloat),
                        1);
  const LogitsRows rows = driver.RunInSteps(0, ids, {static_cast<int32_t>(ids.size())});
  Difference difference;
  double largest_logit = 0.0;
  for (size_t row = 0; row < rows.size(); ++row) {
    for (size_t id = 0; id < rows[row].size(); ++id) {
      const auto wanted = golden["logits"][row][id].get<double>();
      const double specified = reference[row * rows[row].size() + id];
      difference.reference = std::max(difference.reference, std::abs(specified - wanted));
      difference.executor = std::max(difference.executor, std::abs(rows[row][id] - wanted));
      largest_logit = std::max(largest_logit, std::abs(wanted));
    }
  }
  std::printf("%s: largest difference %.1e, of the executor %.1e, at logits up to %.1f\n",
              name.c_str(), difference.reference, difference.executor, largest_logit);
  return {.reference = difference.reference / largest_logit,
          .executor = difference.executor / largest_logit};
}

TEST(CheckpointTest, ShardedFloatsWithScaledRopeGiveTheLogitsOfTransformers) {
  const Difference difference = DifferenceFromGolden("plain");
  EXPECT_LT(difference.reference, 1e-5);  // the golden has five digits after the point
  EXPECT_LT(difference.executor, 2e-3);
}

TEST(CheckpointTest, Nf4WithNestedScalesGivesTheLogitsOfTransformers) {
  const Difference difference = DifferenceFromGolden("nf4");
  EXPECT_LT(difference.reference, 1e-5);
  EXPECT_LT(difference.executor, 2e-3);
  const auto file = OpenModel(std::string(kTestdata) + "nf4").value();
  // Packed, weights and activations are of 8 bits. Packing gives pages of the file back to the
  // system: what is read after it (the reference) must still be there.
  const std::vector<int32_t> ids = RandomTokens(20, 96, 3);
  ExecutorDriver packed(MakeTestExecutor(*file, KvType::kF16), 1);
  const std::vector<double> reference =
      ReferenceForward(*file, ModelConfigFromGguf(*file).value(), ids);
  const LogitsRows rows = packed.RunInSteps(0, ids, {20});
  for (size_t row = 0; row < rows.size(); ++row) {
    const std::vector<double> wanted(reference.begin() + row * 96,
                                     reference.begin() + (row + 1) * 96);
    EXPECT_GT(Cosine(rows[row], wanted), 0.999) << row;
  }
  EXPECT_EQ(file->FindTensor("blk.1.attn_q.weight")->dtype, DType::kNF4);
  EXPECT_EQ(file->FindTensor("token_embd.weight")->dtype, DType::kBF16);
  EXPECT_EQ(file->FindTensor("output.weight"), nullptr);
}

TEST(CheckpointTest, WhatIsNoFolderIsAGgufFile) {
  EXPECT_EQ(OpenModel("/nowhere/model.gguf").status().code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(OpenModel("/tmp").status().code(), absl::StatusCode::kNotFound);  // no config.json
}

// A copy of a folder that a test may spoil.
class SpoiledFolder {
 public:
  explicit SpoiledFolder(const std::string& name)
      : path_(testing::TempDir() + "/tandem_checkpoint_" + std::to_string(getpid())) {
    std::filesystem::remove_all(path_);
    std::filesystem::copy(kTestdata + name, path_);
  }
  ~SpoiledFolder() { std::filesystem::remove_all(path_); }
  std::string File(const std::string& name) const { return path_ + "/" + name; }
  void Write(const std::string& name, const std::string& bytes) const {
    std::ofstream(File(name), std::ios::binary) << bytes;
  }
  void EditJson(const std::string& name, const std::function<void(json&)>& edit) const {
    json value = json::parse(ReadAll(File(name)));
    edit(value);
    Write(name, value.dump());
  }
  // Changes the header of the one safetensors file; its length follows.
  void EditHeader(const std::function<void(json&)>& edit) const {
    const std::string bytes = ReadAll(File("model.safetensors"));
    uint64_t size = 0;
    std::memcpy(&size, bytes.data(), sizeof(size));
    json header = json::parse(bytes.substr(8, size));
    edit(header);
    const std::string data = bytes.substr(8 + size);
    const std::string text = header.dump();
    size = text.size();
    Write("model.safetensors", std::string(reinterpret_cast<char*>(&size), 8) + text + data);
  }
  absl::Status Open() const { return OpenModel(path_).status(); }

 private:
  std::string path_;
};

constexpr char kDown[] = "model.layers.0.mlp.down_proj.weight";

TEST(CheckpointTest, UnsoundHeadersAreRefused) {
  const std::function<void(json&)> lies[] = {
      [](json& h) {
        h[kDown]["shape"] = {-1, 5};
      },
      [](json& h) {
        h[kDown]["shape"] = {1ull << 62, 1ull << 62};
      },
      [](json& h) { h[kDown]["shape"] = {0}; },
      [](json& h) { h[kDown]["shape"] = "none"; },
      [](json& h) {
        h[kDown]["data_offsets"] = {0, 1ull << 60};
      },
      [](json& h) {
        h[kDown]["data_offsets"] = {100, 50};
      },
      [](json& h) {
        h[kDown]["data_offsets"] = {-8, 8};
      },
      [](json& h) {
        h[kDown]["data_offsets"] = {0.5, 8};
      },
      [](json& h) { h[kDown].erase("dtype"); },
      [](json& h) { h[kDown]["dtype"] = "F8_E4M3"; },
      [](json& h) { h[kDown] = 7; },
      [](json& h) { h.erase(kDown); },
      [](json& h) { h = json::array(); },
      [](json& h) { h.erase(std::string(kDown) + ".absmax"); },
      [](json& h) { h.erase(std::string(kDown) + ".nested_quant_map"); },
      [](json& h) {
        std::swap(h[std::string(kDown) + ".quant_map"],
                  h["model.layers.1.mlp.down_proj.weight.nested_absmax"]);
      },
  };
  for (const auto& lie : lies) {
    const SpoiledFolder folder("nf4");
    folder.EditHeader(lie);
    const absl::Status status = folder.Open();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << status;
  }
  const SpoiledFolder overlap("nf4");
  overlap.EditHeader([](json& h) {
    h["model.layers.1.mlp.down_proj.weight"]["data_offsets"] = h[kDown]["data_offsets"];
  });
  EXPECT_EQ(overlap.Open().code(), absl::StatusCode::kInvalidArgument) << overlap.Open();
  const SpoiledFolder longer("nf4");
  longer.Write("model.safetensors", ReadAll(longer.File("model.safetensors")) + "xx");
  EXPECT_EQ(longer.Open().code(), absl::StatusCode::kInvalidArgument) << longer.Open();
  const SpoiledFolder untouched("nf4");
  untouched.EditHeader([](json&) {});
  EXPECT_TRUE(untouched.Open().ok()) << untouched.Open();
}

// A safetensors file of this header and so many bytes of data.
std::string FileOf(const std::string& header, size_t num_bytes) {
  const uint64_t size = header.size();
  return std::string(reinterpret_cast<const char*>(&size), 8) + header +
         std::string(num_bytes, '\0');
}

TEST(CheckpointTest, HeadersThatReadersTakeDifferentlyAreRefused) {
  const std::string a = R"("a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]})";
  const std::string headers[] = {
      "{" + a + "," + a + "}",
      "{" + a + R"(,"b":{"dtype":"F32","shape":[1],"data_offsets":[2,6]}})",
      "{" + a + R"(,"b":{"dtype":"F32","shape":[1],"data_offsets":[6,10]}})",
      std::string(100'000, '[') + std::string(100'000, ']'),
      "{\"a\":" + std::string(100'000, '[') + std::string(100'000, ']') + "}",
  };
  const SpoiledFolder folder("nf4");
  for (const std::string& header : headers) {
    folder.Write("model.safetensors", FileOf(header, 10));
    EXPECT_EQ(folder.Open().code(), absl::StatusCode::kInvalidArgument) << header.substr(0, 99);
  }
}

TEST(CheckpointTest, FilesThatAreCutAreRefused) {
  const SpoiledFolder folder("nf4");
  const std::string bytes = ReadAll(folder.File("model.safetensors"));
  for (const size_t size :
       {size_t{0}, size_t{7}, size_t{9}, size_t{100}, bytes.size() / 2, bytes.size() - 1}) {
    folder.Write("model.safetensors", bytes.substr(0, size));
    EXPECT_EQ(folder.Open().code(), absl::StatusCode::kInvalidArgument) << size;
  }
  folder.Write("model.safetensors", std::string(8, '\xff') + bytes.substr(8));
  EXPECT_EQ(folder.Open().code(), absl::StatusCode::kInvalidArgument);
}

TEST(CheckpointTest, ConfigurationsThatTandemDoesNotRunAreRefused) {
  const std::pair<const char*, json> changes[] = {
      {"model_type", "mistral"}, {"hidden_act", "gelu"},       {"attention_bias", true},
      {"mlp_bias", true},        {"num_hidden_layers", 0},     {"num_hidden_layers", "two"},
      {"num_hidden_layers", 3},  {"num_attention_heads", 3},   {"num_key_value_heads", -1},
      {"head_dim", 31},          {"vocab_size", json::array()}};
  for (const auto& [key, value] : changes) {
    const SpoiledFolder folder("nf4");
    folder.EditJson("config.json", [&](json& config) { config[key] = value; });
    EXPECT_EQ(folder.Open().code(), absl::StatusCode::kInvalidArgument) << key << value;
  }
  const SpoiledFolder folder("nf4");
  folder.Write("config.json", "[1, 2");
  EXPECT_EQ(folder.Open().code(), absl::StatusCode::kInvalidArgument);
}

TEST(CheckpointTest, IndexThatLeadsOutOfTheFolderIsRefused) {
  for (const char* name : {"../model.safetensors", "/etc/passwd", ""}) {
    const SpoiledFolder folder("plain");
    folder.EditJson("model.safetensors.index.json",
                    [&](json& index) { index["weight_map"]["x"] = name; });
    EXPECT_EQ(folder.Open().code(), absl::StatusCode::kInvalidArgument) << name;
  }
}

TEST(CheckpointTest, TokenizerBecomesGgufsArrays) {
  const SpoiledFolder folder("nf4");
  folder.Write("tokenizer.json", R"({
    "added_tokens": [{"id": 3, "content": "<|end|>", "special": true}],
    "pre_tokenizer": {"type": "Sequence", "pretokenizers": [{"type": "Digits"}]},
    "model": {"type": "BPE", "vocab": {"a": 0, "b": 1, "ab": 2}, "merges": [["a", "b"]]}})");
  folder.Write("tokenizer_config.json", R"({"eos_token": {"content": "<|end|>"},
    "chat_template": "{{ messages }}"})");
  const auto file = OpenModel(folder.File("")).value();
  const auto tokens = file->GetStrings("tokenizer.ggml.tokens").value();
  ASSERT_EQ(tokens.size(), 96u);  // the output's rows
  EXPECT_EQ(tokens[2], "ab");
  EXPECT_EQ(tokens[95], "<|unused_95|>");
  EXPECT_EQ((*file->GetInts("tokenizer.ggml.token_type"))[3], 3);
  EXPECT_EQ((*file->GetInts("tokenizer.ggml.token_type"))[4], 5);
  EXPECT_EQ(file->GetStrings("tokenizer.ggml.merges").value()[0], "a b");
  EXPECT_EQ(file->GetString("tokenizer.ggml.pre").value(), "smollm");
  EXPECT_EQ(file->GetInt("tokenizer.ggml.eos_token_id").value(), 3);
  EXPECT_EQ(file->GetString("tokenizer.chat_template").value(), "{{ messages }}");
  for (const char* bad :
       {R"({"model": {"type": "Unigram"}})", R"({"model": {"vocab": {"a": -1}}})",
        R"({"model": {"vocab": {"a": 4000000000}}})",
        R"({"model": {"vocab": {"a": 0}, "merges": [3]}})", R"({"added_tokens": [5]})"}) {
    folder.Write("tokenizer.json", bad);
    EXPECT_EQ(folder.Open().code(), absl::StatusCode::kInvalidArgument) << bad;
  }
}

}  // namespace
}  // namespace tandem
