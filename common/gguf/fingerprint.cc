#include "common/gguf/fingerprint.h"

#include <algorithm>
#include <cstdint>

#include "absl/strings/str_format.h"
#include "absl/types/span.h"

namespace tandem {
namespace {

// Less than a page of memory, so that a tensor costs at most two reads of the disk.
constexpr size_t kSampleBytes = 2048;

// FNV-1a (Fowler, Noll, Vo), 64 bits.
class Hash {
 public:
  void Add(absl::Span<const uint8_t> bytes) {
    for (const uint8_t byte : bytes) value_ = (value_ ^ byte) * 0x100000001b3u;
  }
  uint64_t value() const { return value_; }

 private:
  uint64_t value_ = 0xcbf29ce484222325u;
};

}  // namespace

std::string ModelFingerprint(const GgufFile& file) {
  const uint8_t* begin = file.bytes().data();
  const uint8_t* end = begin + file.bytes().size();
  for (const GgufTensor& tensor : file.tensors()) {
    if (!tensor.data.empty()) end = std::min(end, tensor.data.data());
  }
  Hash hash;
  hash.Add(absl::MakeSpan(begin, end));
  for (const GgufTensor& tensor : file.tensors()) hash.Add(tensor.data.subspan(0, kSampleBytes));
  return absl::StrFormat("%016x", hash.value() ^ static_cast<uint64_t>(file.file_bytes()));
}

}  // namespace tandem
