// One .safetensors file, mapped read-only and checked before use.
//
// Eight bytes of header length, a JSON header of names, types, shapes and offsets, then the
// data. Nothing of it is trusted: lengths, offsets and shapes are compared with the file.
// Source: the format's description in the safetensors repository (README, "Format").
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"

namespace tandem {

// One tensor as the file has it: the last dimension is the fastest.
struct SafetensorsTensor {
  std::string dtype;  // "BF16", "F16", "F32", "U8", ...
  std::vector<int64_t> shape;
  absl::Span<const uint8_t> data;  // in the mapping; as many bytes as type and shape say
};

// Immutable; thread-safe. Tensors live as long as it does.
class SafetensorsFile {
 public:
  // INVALID_ARGUMENT naming what is not sound, NOT_FOUND when there is no such file.
  static absl::StatusOr<std::shared_ptr<SafetensorsFile>> Open(const std::string& path);
  ~SafetensorsFile();
  SafetensorsFile(const SafetensorsFile&) = delete;
  SafetensorsFile& operator=(const SafetensorsFile&) = delete;

  int64_t file_bytes() const { return static_cast<int64_t>(mapping_.size()); }
  const absl::flat_hash_map<std::string, SafetensorsTensor>& tensors() const { return tensors_; }

 private:
  SafetensorsFile() = default;
  absl::Status Parse(const std::string& path);
  absl::Status CheckTiling(const std::string& path, absl::Span<const uint8_t> data) const;

  absl::Span<const uint8_t> mapping_;
  absl::flat_hash_map<std::string, SafetensorsTensor> tensors_;
};

}  // namespace tandem
