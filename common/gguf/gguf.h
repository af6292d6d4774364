// GGUF version 3 files, mapped read-only and checked before use.
//
// Nothing in the file is trusted: every count, length, offset and product is
// compared with the file's size before it is used, and nothing is allocated in
// proportion to a number that the file merely claims.
// Source: the GGUF specification in the ggml repository (docs/gguf.md).
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "common/tensor/dtype.h"

namespace tandem {

// A metadata array. Strings point into the mapping; numbers are widened.
using GgufArray = std::variant<std::vector<std::string_view>, std::vector<int64_t>,
                               std::vector<uint64_t>, std::vector<double>, std::vector<bool>>;
// A metadata value; integers are widened to 64 bits, floats to double.
using GgufValue = std::variant<int64_t, uint64_t, double, bool, std::string_view, GgufArray>;

// One tensor of the file. `dims[0]` is the fastest (ggml order): a weight of a
// layer with `out` outputs and `in` inputs has dims {in, out}.
struct GgufTensor {
  std::string_view name;
  DType dtype = DType::kF32;
  std::vector<int64_t> dims;       // 1 to 4, each at least 1
  absl::Span<const uint8_t> data;  // in the mapping; whole rows of whole blocks

  int64_t num_elements() const;
};

// An open file. Immutable after Open; thread-safe. Everything it hands out lives
// as long as it does.
//
// A file that another process shortens while it is mapped ends a reader by SIGBUS:
// copy the weights out once, at load, and nothing can happen while serving.
class GgufFile {
 public:
  // INVALID_ARGUMENT naming the field and offset when the file is not sound;
  // NOT_FOUND or PERMISSION_DENIED when it cannot be opened. A file that holds
  // only metadata (a vocabulary) is sound.
  static absl::StatusOr<std::unique_ptr<GgufFile>> Open(const std::string& path);
  ~GgufFile();
  GgufFile(const GgufFile&) = delete;
  GgufFile& operator=(const GgufFile&) = delete;

  const std::string& path() const { return path_; }
  int64_t file_bytes() const { return file_bytes_; }
  absl::Span<const uint8_t> bytes() const { return mapping_; }

  // In file order.
  absl::Span<const GgufTensor> tensors() const { return tensors_; }
  // nullptr when there is none of that name.
  const GgufTensor* FindTensor(std::string_view name) const;

  // In file order.
  absl::Span<const std::pair<std::string_view, GgufValue>> metadata() const { return metadata_; }
  const GgufValue* FindValue(std::string_view key) const;

  // Typed access. NOT_FOUND without the key, INVALID_ARGUMENT for another type
  // or a value out of range; both name the key.
  absl::StatusOr<int64_t> GetInt(std::string_view key) const;
  absl::StatusOr<double> GetFloat(std::string_view key) const;
  absl::StatusOr<bool> GetBool(std::string_view key) const;
  absl::StatusOr<std::string_view> GetString(std::string_view key) const;
  absl::StatusOr<absl::Span<const std::string_view>> GetStrings(std::string_view key) const;
  absl::StatusOr<std::vector<float>> GetFloats(std::string_view key) const;
  absl::StatusOr<std::vector<int64_t>> GetInts(std::string_view key) const;

 private:
  GgufFile() = default;
  friend class GgufParser;
  friend class GgufBuilder;

  // NOT_FOUND without the key; for Array, INVALID_ARGUMENT when it is no array.
  absl::StatusOr<const GgufValue*> Value(std::string_view key) const;
  absl::StatusOr<const GgufArray*> Array(std::string_view key, std::string_view wanted) const;

  std::string path_;
  absl::Span<const uint8_t> mapping_;
  int64_t file_bytes_ = 0;
  std::shared_ptr<void> backing_;  // of what a GgufBuilder added
  std::vector<std::pair<std::string_view, GgufValue>> metadata_;
  std::vector<GgufTensor> tensors_;
  absl::flat_hash_map<std::string_view, int32_t> metadata_index_;
  absl::flat_hash_map<std::string_view, int32_t> tensor_index_;
};

}  // namespace tandem
