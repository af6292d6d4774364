// Reads a GGUF file front to back and never past its end.
#pragma once

#include <cstdint>
#include <cstring>
#include <string>
#include <string_view>
#include <type_traits>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "common/base/status_macros.h"

namespace tandem {

// A position in a file's bytes. Every read is compared with what is left before it
// is made; a failed read leaves the position where the field began, so that the
// error names the field's own offset. Not thread-safe.
class GgufCursor {
 public:
  // `path` is for messages. Both must outlive the cursor.
  GgufCursor(absl::Span<const uint8_t> bytes, const std::string& path)
      : bytes_(bytes), path_(path) {}

  uint64_t offset() const { return offset_; }
  uint64_t remaining() const { return bytes_.size() - offset_; }

  // A little-endian number.
  template <typename T>
  absl::StatusOr<T> Read(std::string_view field) {
    static_assert(std::is_arithmetic_v<T> && !std::is_same_v<T, bool>);
    RETURN_IF_ERROR(Require(sizeof(T), field));
    T value;
    std::memcpy(&value, bytes_.data() + offset_, sizeof(T));
    offset_ += sizeof(T);
    return value;
  }

  // A 64-bit length and as many bytes, at most `limit`; the text is in the file.
  absl::StatusOr<std::string_view> ReadString(uint64_t limit, std::string_view field);

  // `num_bytes` bytes, in the file.
  absl::StatusOr<absl::Span<const uint8_t>> ReadBytes(uint64_t num_bytes, std::string_view field);

  // INVALID_ARGUMENT "<path>: <field> at offset <offset>: <what>", for `offset` and
  // for the present position.
  absl::Status ErrorAt(uint64_t offset, std::string_view field, std::string_view what) const;
  absl::Status Error(std::string_view field, std::string_view what) const {
    return ErrorAt(offset_, field, what);
  }

 private:
  absl::Status Require(uint64_t num_bytes, std::string_view field) const;

  const absl::Span<const uint8_t> bytes_;
  const std::string& path_;
  uint64_t offset_ = 0;  // at most bytes_.size()
};

}  // namespace tandem
