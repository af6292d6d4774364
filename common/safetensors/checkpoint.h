// Model folders as Hugging Face publishes them, presented as GGUF files.
#pragma once

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "common/gguf/gguf.h"

namespace tandem {

// Opens a model: a GGUF file, or a folder with config.json, tokenizer.json and
// model.safetensors (or the shards that model.safetensors.index.json lists). Weights in BF16,
// F16, F32, and in bitsandbytes' NF4. Errors as GgufFile::Open.
//
// A folder's metadata and tensors have GGUF's names; the rows of Q and K are put into GGUF's
// order (pairs that rotate together side by side), which copies them, and NF4 weights are put
// together with their scales, which copies those. All other weights stay in the files.
absl::StatusOr<std::unique_ptr<GgufFile>> OpenModel(const std::string& path);

}  // namespace tandem
