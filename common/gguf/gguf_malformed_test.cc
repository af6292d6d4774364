// Every way in which a GGUF file can lie, one small file each: refused with an error
// that names field, offset and path, and before anything is allocated for the claim.
#include <limits>
#include <vector>

#include "common/gguf/gguf.h"
#include "common/gguf/gguf_parser.h"
#include "common/gguf/gguf_test_file.h"
#include "common/gguf/gguf_writer.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace tandem {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

constexpr uint64_t kHuge = std::numeric_limits<uint64_t>::max();
constexpr int64_t kMaxInt64 = std::numeric_limits<int64_t>::max();

absl::Status OpenBytes(std::string_view bytes) {
  const TemporaryFile file(::testing::TempDir() + "gguf_malformed.gguf", bytes);
  return GgufFile::Open(file.path()).status();
}

struct BadFile {
  const char* name;      // of the case
  std::string bytes;     // the file
  const char* expected;  // in the message, after the path
};

void ExpectRefused(const std::vector<BadFile>& cases) {
  for (const BadFile& bad : cases) {
    const absl::Status status = OpenBytes(bad.bytes);
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << bad.name << ": " << status;
    EXPECT_THAT(std::string(status.message()),
                AllOf(HasSubstr("gguf_malformed.gguf: "), HasSubstr(bad.expected)))
        << bad.name;
  }
}

// A file of one key with this value, and room after it.
std::string WithValue(uint32_t type, const GgufBytes& value) {
  return GgufBytes().Header(0, 1).String("k").U32(type).Raw(value.bytes()).bytes();
}

struct TensorClaim {
  std::string name = "t";
  std::vector<int64_t> dims = {8};
  uint32_t type = 0;
  uint64_t offset = 0;
};

// A file of these tensors, with `data_bytes` of data.
std::string WithTensors(const std::vector<TensorClaim>& tensors, size_t data_bytes = 64) {
  GgufBytes bytes;
  bytes.Header(tensors.size(), 0);
  for (const TensorClaim& tensor : tensors) {
    bytes.String(tensor.name).U32(static_cast<uint32_t>(tensor.dims.size()));
    for (const int64_t dim : tensor.dims) {
      bytes.Number(dim);
    }
    bytes.U32(tensor.type).U64(tensor.offset);
  }
  return bytes.PadTo(32).Zeros(data_bytes).bytes();
}

std::string WithAlignment(uint32_t type, const GgufBytes& value) {
  return GgufBytes().Header(0, 1).String("general.alignment").U32(type).Raw(value.bytes()).bytes();
}

TEST(GgufMalformedTest, TruncationAtEveryByteIsRefused) {
  const std::string sound = SoundGgufBytes();
  ASSERT_TRUE(OpenBytes(sound).ok());
  ASSERT_GT(sound.size(), 1500U);
  for (size_t length = 0; length < sound.size(); ++length) {
    const absl::Status status = OpenBytes(std::string_view(sound).substr(0, length));
    ASSERT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << "cut to " << length;
  }
}

TEST(GgufMalformedTest, Headers) {
  const auto version = [](uint32_t number) {
    return GgufBytes().Raw("GGUF").U32(number).U64(0).U64(0).bytes();
  };
  ExpectRefused({
      {"empty", "", "not a GGUF file"},
      {"magic", GgufBytes().Raw("GGML").Zeros(60).bytes(), "magic at offset 0: not a GGUF"},
      {"magic reversed", GgufBytes().Raw("FUGG").Zeros(60).bytes(), "magic at offset 0"},
      {"version 0", version(0), "version at offset 4: not a supported GGUF: version 0"},
      {"version 1", version(1), "not a supported GGUF: version 1, need 3"},
      {"version 2", version(2), "not a supported GGUF: version 2, need 3"},
      {"version 4", version(4), "not a supported GGUF: version 4, need 3"},
      {"big-endian", version(0x03000000), "big-endian GGUF is not supported"},
      {"keys", GgufBytes().Header(0, uint64_t{1} << 63).Zeros(64).bytes(),
       "metadata_kv_count at offset 16: 9223372036854775808 keys, at most 65536"},
      {"tensors", GgufBytes().Header(kHuge, 0).Zeros(64).bytes(),
       "tensor_count at offset 8: 18446744073709551615 tensors, at most 65536"},
      {"keys over the file", GgufBytes().Header(0, 65536).Zeros(64).bytes(), "cut short"},
      {"tensors over the file", GgufBytes().Header(65536, 0).Zeros(64).bytes(), "cut short"},
  });
}

TEST(GgufMalformedTest, KeysAndStrings) {
  const auto key = [](std::string_view name) {
    return GgufBytes().Header(0, 1).String(name).U32(4).U32(1).Zeros(8).bytes();
  };
  const auto string_of = [](uint64_t length) {
    return WithValue(8, GgufBytes().U64(length).Zeros(100));
  };
  ExpectRefused({
      {"empty key", key(""), "metadata key 0 at offset 24: '' is empty or not printable"},
      {"key not UTF-8", key("a\xff"), "metadata key 0 at offset 24: 'a\\xff' is empty or not"},
      {"key with NUL", key(std::string("a\0b", 3)), "not printable"},
      {"key too long", GgufBytes().Header(0, 1).U64(65536).Zeros(65600).bytes(), "at most 65535"},
      {"key length", GgufBytes().Header(0, 1).U64(kHuge).Zeros(64).bytes(), "at most 65535"},
      {"key twice",
       GgufBytes().Header(0, 2).String("kk").U32(4).U32(1).String("kk").U32(4).U32(1).bytes(),
       "metadata 'kk' at offset 42: the key is there twice"},
      {"string 2^64-1", string_of(kHuge), "metadata 'k' at offset 37: is a string of 1844674"},
      {"string 2^32", string_of(uint64_t{1} << 32), "4294967296 bytes, at most 67108864"},
      {"string over the limit", string_of((64 << 20) + 1), "at most 67108864"},
      {"string of remaining + 1", string_of(101), "is a string of 101 bytes, the file has 100"},
  });
}

TEST(GgufMalformedTest, ValuesAndArrays) {
  const auto array = [](uint32_t type, uint64_t count) {
    return WithValue(9, GgufBytes().U32(type).U64(count).Zeros(32));
  };
  GgufBytes nested;
  for (int i = 0; i < 10000; ++i) {
    nested.U32(9).U64(1);
  }
  ExpectRefused({
      {"type 255", WithValue(255, GgufBytes().Zeros(16)), "unknown value type 255"},
      {"type 13", WithValue(13, GgufBytes().Zeros(16)), "unknown value type 13"},
      {"bool 7", WithValue(7, GgufBytes().Number<uint8_t>(7)), "is a bool of value 7"},
      {"array of bool 2", WithValue(9, GgufBytes().U32(7).U64(2).Raw("\1\2")),
       "metadata 'k' at offset 50: is a bool of value 2"},
      {"2^60 elements", array(0, uint64_t{1} << 60), "1152921504606846976 elements, at most"},
      {"2^64-1 elements", array(10, kHuge), "elements, at most 16777216"},
      {"elements over the file", array(0, 33), "array of 33 elements, the file has 32 bytes"},
      {"wide elements over the file", array(10, 5), "array of 5 elements, the file has 32 bytes"},
      {"strings over the file", array(8, 5), "array of 5 elements, the file has 32 bytes"},
      {"string in an array", WithValue(9, GgufBytes().U32(8).U64(1).U64(9).Zeros(8)),
       "is a string of 9 bytes, the file has 8"},
      {"unknown element", array(200, 1), "is an array of unknown type 200"},
      {"array in array", array(9, 1), "is an array of arrays"},
      {"array depth 10000", WithValue(9, nested), "is an array of arrays"},
  });
}

TEST(GgufMalformedTest, TensorShapes) {
  const auto dims = [](std::vector<int64_t> sizes, uint32_t type = 0) {
    return WithTensors({{.dims = std::move(sizes), .type = type}});
  };
  const auto num_dims = [](uint32_t count) {
    return GgufBytes().Header(1, 0).String("t").U32(count).Zeros(128).bytes();
  };
  ExpectRefused({
      {"0 dims", num_dims(0), "tensor 't' dims at offset 33: 0 dimensions, need 1 to 4"},
      {"5 dims", num_dims(5), "5 dimensions, need 1 to 4"},
      {"2^32-1 dims", num_dims(0xffffffff), "4294967295 dimensions, need 1 to 4"},
      {"dim 0", dims({8, 0}), "tensor 't' dims at offset 45: dimension 1 is 0, need at least 1"},
      {"dim negative", dims({-8}), "dimension 0 is -8"},
      {"dim 2^63", dims({std::numeric_limits<int64_t>::min()}), "dimension 0 is -922337203685477"},
      {"product wraps", dims({int64_t{1} << 32, int64_t{1} << 32}), "size overflows"},
      {"product wraps to 0", dims({1 << 16, 1 << 16, 1 << 16, 1 << 16}), "size overflows"},
      {"product fits, bytes wrap", dims({int64_t{1} << 61, 2}), "size overflows"},
      {"bytes wrap in one row", dims({kMaxInt64 / 2}), "size overflows"},
      {"elements wrap, bytes fit", dims({int64_t{1} << 32, int64_t{1} << 31}, 2), "overflows"},
      {"near 2^63", dims({kMaxInt64 - 255}, 2), "cut short"},
      {"row of 31 Q4_0", dims({31, 32}, 2), "rows of 31 elements, Q4_0 has blocks of 32"},
      {"row of 32 Q6_K", dims({32, 8}, 14), "rows of 32 elements, Q6_K has blocks of 256"},
      {"type not read", dims({256}, 10), "tensor 't' type at offset 45: type id 10 is not one"},
      {"removed type", dims({256}, 4), "type id 4 is not one"},
      {"unknown type", dims({256}, 0xffffffff), "type id 4294967295 is not one"},
  });
}

TEST(GgufMalformedTest, TensorNamesAndPlaces) {
  const auto at = [](uint64_t offset) { return WithTensors({{.offset = offset}}); };
  ExpectRefused({
      {"empty name", WithTensors({{.name = ""}}), "tensor 0 name at offset 24"},
      {"name not printable", WithTensors({{.name = "a\x1b[2J"}}), "'a\\x1b[2J' is empty or not"},
      {"name of 65 bytes", WithTensors({{.name = std::string(65, 'n')}}), "at most 64"},
      {"name twice", WithTensors({{.name = "tt"}, {.name = "tt", .offset = 32}}),
       "tensor 'tt' at offset 58: the name is there twice"},
      {"offset unaligned", at(16), "tensor 't' offset at offset 49: 16 is no multiple of the"},
      {"offset past the end", at(96), "cut short"},
      {"offset at the end", at(64), "takes 32 bytes from 64 of the data section, which has 64"},
      {"offset near 2^64", at(kHuge - 31), "cut short"},
      {"offset + size wraps", at(uint64_t{1} << 63), "cut short"},
      {"same place", WithTensors({{.name = "a"}, {.name = "b"}}), "overlaps tensor"},
      {"inside another", WithTensors({{.name = "a", .dims = {16}}, {.name = "b", .offset = 32}}),
       "tensor 'b' at offset 82: overlaps tensor 'a'"},
      {"order of the file does not matter",
       WithTensors({{.name = "b", .offset = 32}, {.name = "a", .dims = {16}}}), "overlaps"},
  });
  EXPECT_TRUE(OpenBytes(WithTensors({{.name = "b", .offset = 32}, {.name = "a"}})).ok());
}

TEST(GgufMalformedTest, Alignment) {
  const auto is = [](uint32_t value) { return WithAlignment(4, GgufBytes().U32(value)); };
  ExpectRefused({
      {"0", is(0), "metadata 'general.alignment' at offset 53: is 0; need a power of two"},
      {"3", is(3), "is 3; need a power of two, 8 to 1048576"},
      {"4", is(4), "is 4; need"},
      {"2 MiB", is(2 << 20), "is 2097152; need"},
      {"0x80000000", is(0x80000000), "is 2147483648; need"},
      {"float", WithAlignment(6, GgufBytes().Number(32.0F)), "not an unsigned number"},
      {"negative", WithAlignment(5, GgufBytes().Number(-32)), "not an unsigned number"},
      {"string", WithAlignment(8, GgufBytes().String("32")), "not an unsigned number"},
  });
  // The padding before the data is itself cut off.
  GgufWriter writer(/*alignment=*/1 << 20);
  writer.AddTensor("t", {1}, std::vector<float>{1});
  ExpectRefused({{"padding", writer.Build().substr(0, 4096), "padding before the tensor data"}});
}

}  // namespace
}  // namespace tandem
