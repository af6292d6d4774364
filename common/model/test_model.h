// Small models with random weights, as GGUF files, for the tests of this folder.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "common/gguf/gguf.h"
#include "common/gguf/gguf_writer.h"
#include "common/tensor/dtype.h"

namespace tandem {

// A tensor about to be written; a test may change it.
struct TestTensor {
  std::string name;
  DType dtype = DType::kF32;
  std::vector<int64_t> dims;
  std::vector<uint8_t> data;
};

struct TestModelOptions {
  int32_t vocab_size = 77;  // not a multiple of 16: the last group of rows is padded
  int32_t num_layers = 2;
  int32_t hidden_dim = 64;
  int32_t ffn_dim = 96;
  int32_t num_heads = 4;
  int32_t num_kv_heads = 2;
  int32_t head_dim = 32;
  bool tied_head = true;
  DType weight_type = DType::kF32;     // of every matrix but the next
  DType embedding_type = DType::kF32;  // of the embedding and the head
  float rope_theta = 10000.0f;
  std::vector<float> rope_factors;  // head_dim / 2 of them, or none
  uint32_t seed = 1;

  std::string architecture = "llama";
  std::string name = "test model";
  std::vector<std::string> left_out_keys;  // without "llama."
  std::function<void(GgufWriter&)> more_metadata;
  // Returns false to leave the tensor out.
  std::function<bool(TestTensor&)> edit_tensor;
};

std::string TestModelBytes(const TestModelOptions& options);

// The model, through a file in the test's temporary folder that is gone afterwards.
// Requires that the file is sound as a GGUF.
std::unique_ptr<GgufFile> OpenTestModel(const TestModelOptions& options);

// SmolLM2-135M-Instruct, the model of the goldens: TANDEM_TEST_MODEL, or the file that
// tools/get_demo_model.py leaves below the source folder. nullptr where there is none.
std::unique_ptr<GgufFile> OpenSmolLm2();

}  // namespace tandem
