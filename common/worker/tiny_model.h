// A model of a few thousand random weights, for tests.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "common/model/cpu_executor.h"

namespace tandem::worker {

struct TinyModelOptions {
  int32_t vocab_size = 50;
  int32_t num_layers = 2;
  uint32_t seed = 1;
  // A weight of the last layer that is not a number: all logits are not finite.
  bool is_damaged = false;
};

// The bytes of its GGUF, F32, without a vocabulary.
std::string TinyModelBytes(const TinyModelOptions& options);

// The model, loaded through a file in the test's temporary folder. Requires success.
std::unique_ptr<Executor> LoadTinyModel(const TinyModelOptions& model,
                                        const CpuExecutorOptions& options);

}  // namespace tandem::worker
