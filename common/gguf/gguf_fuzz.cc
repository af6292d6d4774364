// Fuzz target of the GGUF reader: libFuzzer's entry point, also run over seeded
// mutations by gguf_fuzz_test.cc. Whatever the bytes, Open refuses them or gives a
// file of which every byte that it hands out can be read.
#include <sys/mman.h>
#include <unistd.h>

#include <cstddef>
#include <cstdint>
#include <string>

#include "absl/strings/str_cat.h"
#include "common/base/check.h"
#include "common/gguf/gguf.h"

namespace {

// Reads a tensor's bytes and checks what the header promises of it.
uint64_t SumOfTensor(const tandem::GgufTensor& tensor) {
  TANDEM_CHECK(!tensor.dims.empty() && tensor.dims.size() <= 4);
  const tandem::DTypeBlock block = tandem::BlockOf(tensor.dtype);
  TANDEM_CHECK(block.elements > 0 && tensor.dims[0] % block.elements == 0);
  TANDEM_CHECK(tensor.num_elements() / block.elements * block.bytes ==
               static_cast<int64_t>(tensor.data.size()));
  uint64_t sum = 0;
  for (const uint8_t byte : tensor.data) {
    sum += byte;
  }
  return sum;
}

uint64_t SumOfValue(const tandem::GgufFile& file, std::string_view key) {
  uint64_t sum = 0;
  if (const auto text = file.GetString(key); text.ok()) {
    for (const char c : *text) {
      sum += static_cast<uint8_t>(c);
    }
  }
  if (const auto strings = file.GetStrings(key); strings.ok()) {
    for (const std::string_view text : *strings) {
      sum += text.empty() ? 0 : static_cast<uint8_t>(text.back());
    }
  }
  sum += file.GetInt(key).ok() + file.GetFloat(key).ok() + file.GetBool(key).ok();
  sum += file.GetFloats(key).ok() + file.GetInts(key).ok();
  return sum;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const int fd = memfd_create("gguf_fuzz", MFD_CLOEXEC);
  TANDEM_CHECK(fd >= 0);
  TANDEM_CHECK(write(fd, data, size) == static_cast<ssize_t>(size));
  const auto file = tandem::GgufFile::Open(absl::StrCat("/proc/self/fd/", fd));
  close(fd);
  if (!file.ok()) {
    TANDEM_CHECK(file.status().code() == absl::StatusCode::kInvalidArgument);
    return 0;
  }
  volatile uint64_t sum = 0;  // keeps the reads
  for (const tandem::GgufTensor& tensor : (*file)->tensors()) {
    TANDEM_CHECK((*file)->FindTensor(tensor.name) == &tensor);
    sum = sum + SumOfTensor(tensor);
  }
  for (const auto& [key, value] : (*file)->metadata()) {
    TANDEM_CHECK((*file)->FindValue(key) == &value);
    sum = sum + SumOfValue(**file, key);
  }
  return 0;
}
