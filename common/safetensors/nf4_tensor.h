// bitsandbytes' pre-quantized NF4 weights as blocks of DType::kNF4.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "common/safetensors/safetensors_file.h"

namespace tandem {

// Finds a tensor of the checkpoint; nullptr when there is none.
using FindSafetensor = std::function<const SafetensorsTensor*(const std::string& name)>;

struct Nf4Matrix {
  int64_t num_rows = 0;
  int64_t num_cols = 0;         // a multiple of 64
  std::vector<uint8_t> blocks;  // [num_rows * num_cols / 64] of 36 bytes
};

// The matrix `name` with what lies beside it: NAME.absmax (F32, or bytes whose own scales are
// NAME.nested_absmax and NAME.nested_quant_map), NAME.quant_map, and the description
// NAME.quant_state.bitsandbytes__nf4. INVALID_ARGUMENT for what is missing, of another size
// or of another code than NF4 in blocks of 64.
// Source: the bitsandbytes library, functional.py, QuantState.
absl::StatusOr<Nf4Matrix> ReadNf4(const std::string& name, const FindSafetensor& find);

}  // namespace tandem
