#include "common/gguf/gguf_cursor.h"

#include <bit>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"

namespace tandem {

static_assert(std::endian::native == std::endian::little,
              "numbers and tensors are used as they lie in the file");

absl::Status GgufCursor::ErrorAt(uint64_t offset, std::string_view field,
                                 std::string_view what) const {
  return absl::InvalidArgumentError(
      absl::StrFormat("%s: %s at offset %d: %s", path_, field, offset, what));
}

absl::Status GgufCursor::Require(uint64_t num_bytes, std::string_view field) const {
  if (num_bytes <= remaining()) {
    return absl::OkStatus();
  }
  return Error(field, absl::StrCat("needs ", num_bytes, " bytes, the file has ", remaining(),
                                   " left; it is cut short or damaged"));
}

absl::StatusOr<std::string_view> GgufCursor::ReadString(uint64_t limit, std::string_view field) {
  const uint64_t start = offset_;
  ASSIGN_OR_RETURN(const uint64_t length, Read<uint64_t>(field));
  if (length > limit) {
    return ErrorAt(start, field,
                   absl::StrCat("is a string of ", length, " bytes, at most ", limit));
  }
  if (length > remaining()) {
    return ErrorAt(start, field,
                   absl::StrCat("is a string of ", length, " bytes, the file has ", remaining(),
                                " left; it is cut short or damaged"));
  }
  const auto* text = reinterpret_cast<const char*>(bytes_.data() + offset_);
  offset_ += length;
  return std::string_view(text, length);
}

absl::StatusOr<absl::Span<const uint8_t>> GgufCursor::ReadBytes(uint64_t num_bytes,
                                                                std::string_view field) {
  RETURN_IF_ERROR(Require(num_bytes, field));
  const absl::Span<const uint8_t> read = bytes_.subspan(offset_, num_bytes);
  offset_ += num_bytes;
  return read;
}

}  // namespace tandem
