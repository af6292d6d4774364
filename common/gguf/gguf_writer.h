// Writes small GGUF version 3 files, for tests and tools.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/types/span.h"
#include "common/tensor/dtype.h"

namespace tandem {

// Collects metadata and tensors in memory, in the order of the calls. What it is
// given it writes: it checks no name and no shape, so that tests can make bad files.
// Not thread-safe.
class GgufWriter {
 public:
  // Requires a power of two; `general.alignment` is written when it is not 32.
  explicit GgufWriter(uint32_t alignment = 32);

  void AddUint32(std::string_view key, uint32_t value);
  void AddUint64(std::string_view key, uint64_t value);
  void AddInt32(std::string_view key, int32_t value);
  void AddFloat(std::string_view key, float value);
  void AddBool(std::string_view key, bool value);
  void AddString(std::string_view key, std::string_view value);
  void AddStrings(std::string_view key, absl::Span<const std::string> values);
  void AddFloats(std::string_view key, absl::Span<const float> values);
  void AddInts(std::string_view key, absl::Span<const int32_t> values);
  // Any value: the file's type number and the bytes after it.
  void AddRaw(std::string_view key, uint32_t type, std::string_view bytes);

  // `dims[0]` is the fastest; `data` is copied.
  void AddTensor(std::string_view name, DType dtype, absl::Span<const int64_t> dims,
                 absl::Span<const uint8_t> data);
  // F32, from numbers.
  void AddTensor(std::string_view name, absl::Span<const int64_t> dims,
                 absl::Span<const float> values);

  // The whole file.
  std::string Build() const;
  // The same into `path`, replacing what was there.
  absl::Status WriteFile(const std::string& path) const;

 private:
  uint32_t alignment_;
  uint64_t num_keys_ = 0;
  uint64_t num_tensors_ = 0;
  std::string metadata_;  // as in the file
  std::string infos_;     // as in the file
  std::string data_;      // padded to the alignment after each tensor but the last
};

}  // namespace tandem
