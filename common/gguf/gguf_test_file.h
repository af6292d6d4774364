// Files for the tests of this folder: a sound one, and pieces of unsound ones.
#pragma once

#include <unistd.h>

#include <cstdint>
#include <cstring>
#include <fstream>
#include <memory>
#include <string>
#include <string_view>

#include "absl/status/statusor.h"
#include "common/gguf/gguf.h"

namespace tandem {

// A file in the test's temporary folder, removed at the end of the scope.
class TemporaryFile {
 public:
  TemporaryFile(std::string path, std::string_view bytes) : path_(std::move(path)) {
    std::ofstream(path_, std::ios::binary)
        .write(bytes.data(), static_cast<std::streamsize>(bytes.size()));
  }
  ~TemporaryFile() { unlink(path_.c_str()); }
  TemporaryFile(const TemporaryFile&) = delete;
  TemporaryFile& operator=(const TemporaryFile&) = delete;
  const std::string& path() const { return path_; }

 private:
  std::string path_;
};

// Every value type, arrays of each kind, and tensors of several types; about 2 KiB,
// with no byte after the last tensor.
std::string SoundGgufBytes();

// Writes a file value by value, as sound or unsound as asked.
class GgufBytes {
 public:
  template <typename T>
  GgufBytes& Number(T value) {
    char bytes[sizeof(T)];
    std::memcpy(bytes, &value, sizeof(T));
    bytes_.append(bytes, sizeof(T));
    return *this;
  }
  GgufBytes& U32(uint32_t value) { return Number(value); }
  GgufBytes& U64(uint64_t value) { return Number(value); }
  GgufBytes& Raw(std::string_view text) {
    bytes_.append(text);
    return *this;
  }
  GgufBytes& String(std::string_view text) { return U64(text.size()).Raw(text); }
  GgufBytes& Header(uint64_t num_tensors, uint64_t num_keys) {
    return Raw("GGUF").U32(3).U64(num_tensors).U64(num_keys);
  }
  // Zeros: what is left of the file, so that counts are compared with something.
  GgufBytes& Zeros(size_t count) {
    bytes_.append(count, '\0');
    return *this;
  }
  GgufBytes& PadTo(size_t alignment) {
    return Zeros((alignment - bytes_.size() % alignment) % alignment);
  }
  const std::string& bytes() const { return bytes_; }

 private:
  std::string bytes_;
};

}  // namespace tandem
