// Runs the fuzz target over seeded mutations of a sound file, in every build.
#include <array>
#include <cstdint>
#include <cstring>
#include <random>
#include <string>

#include "common/gguf/gguf_test_file.h"
#include "gtest/gtest.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size);

namespace tandem {
namespace {

// Numbers at which counts, lengths and products break.
constexpr std::array<uint64_t, 16> kNumbers = {
    0,          1,          2,          9,          32,         255,        65535,      65537,
    1ull << 24, 1ull << 31, 1ull << 32, 1ull << 60, 1ull << 61, 1ull << 63, ~0ull - 31, ~0ull};

void Mutate(std::string& bytes, std::mt19937_64& random) {
  const size_t at = random() % bytes.size();
  switch (random() % 6) {
    case 0:
      bytes[at] = static_cast<char>(random());
      return;
    case 1:
      bytes[at] ^= static_cast<char>(1 << (random() % 8));
      return;
    case 2: {  // a number in place of 4 or 8 bytes
      const uint64_t number = kNumbers[random() % kNumbers.size()];
      const size_t width = random() % 2 == 0 ? 4 : 8;
      std::memcpy(bytes.data() + at, &number, std::min(width, bytes.size() - at));
      return;
    }
    case 3:
      bytes.resize(at + 1);
      return;
    case 4:
      bytes.erase(at, random() % 16 + 1);
      if (bytes.empty()) {
        bytes.push_back('G');
      }
      return;
    default: {  // a piece of the file once more
      const std::string piece = bytes.substr(random() % bytes.size(), random() % 64);
      bytes.insert(at, piece);
    }
  }
}

TEST(GgufFuzzTest, SeededMutationsNeitherCrashNorReadPastTheFile) {
  const std::string sound = SoundGgufBytes();
  std::mt19937_64 random(20240607);
  for (int i = 0; i < 6000; ++i) {
    std::string bytes = sound;
    for (uint64_t left = random() % 4 + 1; left > 0; --left) {
      Mutate(bytes, random);
    }
    LLVMFuzzerTestOneInput(reinterpret_cast<const uint8_t*>(bytes.data()), bytes.size());
  }
}

}  // namespace
}  // namespace tandem
