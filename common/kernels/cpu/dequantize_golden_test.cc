// Dequantize against gguf's Python reference (tools/make_quant_golden.py).
#include <cstring>
#include <fstream>
#include <iterator>
#include <string>
#include <vector>

#include "common/kernels/cpu/packed_matrix.h"
#include "gtest/gtest.h"

namespace tandem::cpu {
namespace {

struct GoldenHeader {
  int32_t type;
  int32_t num_bytes;
  int32_t num_elements;
};

TEST(DequantizeGoldenTest, EveryTypeEqualsThePythonReference) {
  std::ifstream file("common/kernels/cpu/testdata/quant_golden.bin", std::ios::binary);
  ASSERT_TRUE(file) << "run from the root of the source tree";
  int num_types = 0;
  for (GoldenHeader header; file.read(reinterpret_cast<char*>(&header), sizeof(header));) {
    std::vector<uint8_t> source(static_cast<size_t>(header.num_bytes));
    std::vector<float> want(static_cast<size_t>(header.num_elements)), got(want.size());
    file.read(reinterpret_cast<char*>(source.data()), header.num_bytes);
    file.read(reinterpret_cast<char*>(want.data()), header.num_elements * int64_t{4});
    ASSERT_TRUE(file);
    Dequantize(static_cast<SourceType>(header.type), source.data(), header.num_elements,
               got.data());
    for (size_t i = 0; i < want.size(); ++i) {
      ASSERT_EQ(got[i], want[i]) << "type " << header.type << ", element " << i;
    }
    ++num_types;
  }
  EXPECT_EQ(num_types, 9);
}

}  // namespace
}  // namespace tandem::cpu
