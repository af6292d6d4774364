// Turns the bytes of a GGUF file into its metadata and tensor table.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/gguf/gguf.h"
#include "common/gguf/gguf_cursor.h"

namespace tandem {

// What Tandem accepts of any file; docs and messages state the same numbers.
inline constexpr uint64_t kGgufMaxTensors = 65536;
inline constexpr uint64_t kGgufMaxKeys = 65536;
inline constexpr uint64_t kGgufMaxKeyBytes = 65535;      // the specification's
inline constexpr uint64_t kGgufMaxTensorNameBytes = 64;  // the specification's
inline constexpr uint64_t kGgufMaxStringBytes = 64 << 20;
inline constexpr uint64_t kGgufMaxArrayElements = 16 << 20;
inline constexpr uint64_t kGgufMinAlignment = 8;
inline constexpr uint64_t kGgufMaxAlignment = 1 << 20;
inline constexpr uint64_t kGgufDefaultAlignment = 32;

// Value types as the file numbers them.
enum class GgufType : uint32_t {
  kUint8 = 0,
  kInt8 = 1,
  kUint16 = 2,
  kInt16 = 3,
  kUint32 = 4,
  kInt32 = 5,
  kFloat32 = 6,
  kBool = 7,
  kString = 8,
  kArray = 9,
  kUint64 = 10,
  kInt64 = 11,
  kFloat64 = 12,
};

// Fills one GgufFile from its mapping, in one pass. Use once.
class GgufParser {
 public:
  // `file` has its path and mapping set and nothing else.
  explicit GgufParser(GgufFile& file) : file_(file), cursor_(file.mapping_, file.path_) {}

  // INVALID_ARGUMENT naming field, offset and path at the first thing that is not
  // sound; the file is then to be thrown away.
  absl::Status Parse();

 private:
  absl::Status ParseHeader();
  absl::Status ParseMetadata();
  absl::Status ParseAlignment();
  absl::Status ParseTensorInfos();
  absl::Status ParseTensorInfo(uint64_t index);
  absl::StatusOr<uint64_t> ParseTensorShape(GgufTensor& tensor, const std::string& field);
  absl::Status PlaceTensors();

  absl::StatusOr<GgufValue> ReadValue(uint32_t type, std::string_view field);
  absl::StatusOr<GgufArray> ReadArray(std::string_view field);
  absl::StatusOr<bool> ReadBool(std::string_view field);
  template <typename Stored, typename Widened>
  absl::StatusOr<GgufArray> ReadNumbers(uint64_t count, std::string_view field);
  absl::StatusOr<GgufArray> ReadBools(uint64_t count, std::string_view field);
  absl::StatusOr<GgufArray> ReadStrings(uint64_t count, std::string_view field);

  // Where a tensor's bytes lie, before the data section's own place is known.
  struct Extent {
    uint64_t info_offset = 0;  // of the entry in the tensor table, for messages
    uint64_t data_offset = 0;  // from the start of the data section
    uint64_t num_bytes = 0;
  };

  GgufFile& file_;
  GgufCursor cursor_;
  uint64_t num_tensors_ = 0;
  uint64_t num_keys_ = 0;
  uint64_t alignment_ = kGgufDefaultAlignment;
  uint64_t alignment_offset_ = 0;  // of the value of general.alignment
  std::vector<Extent> extents_;    // parallel to file_.tensors_
};

}  // namespace tandem
