#include "common/tokenizer/byte_alphabet.h"

#include <array>
#include <cstdint>

#include "common/tokenizer/utf8.h"

namespace tandem {
namespace {

constexpr char32_t kAlphabetEnd = 0x144;

constexpr bool IsVisible(int32_t byte) {
  return (byte >= 0x21 && byte <= 0x7E) || (byte >= 0xA1 && byte <= 0xAC) || byte >= 0xAE;
}

// The byte of each code point below kAlphabetEnd, -1 for those that are not used.
constexpr std::array<int16_t, kAlphabetEnd> ByteOfCodePoint() {
  std::array<int16_t, kAlphabetEnd> bytes{};
  for (int16_t& byte : bytes) byte = -1;
  size_t next = 0x100;
  for (int32_t byte = 0; byte < 256; ++byte) {
    const size_t code_point = IsVisible(byte) ? static_cast<size_t>(byte) : next++;
    bytes[code_point] = static_cast<int16_t>(byte);
  }
  return bytes;
}

constexpr auto kByteOfCodePoint = ByteOfCodePoint();

}  // namespace

std::optional<std::string> BytesOfAlphabet(std::string_view text) {
  std::string bytes;
  bytes.reserve(text.size());
  while (!text.empty()) {
    const Utf8Step step = DecodeUtf8(text);
    if (step.code_point >= kAlphabetEnd) return std::nullopt;
    const int16_t byte = kByteOfCodePoint[step.code_point];
    if (byte < 0) return std::nullopt;
    bytes.push_back(static_cast<char>(byte));
    text.remove_prefix(static_cast<size_t>(step.length));
  }
  return bytes;
}

}  // namespace tandem
