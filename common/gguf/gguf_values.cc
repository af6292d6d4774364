// The part of GgufParser that reads metadata values.
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/base/status_macros.h"
#include "common/gguf/gguf_parser.h"

namespace tandem {
namespace {

// Bytes of one element as stored; of a string, the least. 0 for what no array holds.
uint64_t MinElementBytes(GgufType type) {
  switch (type) {
    case GgufType::kUint8:
    case GgufType::kInt8:
    case GgufType::kBool:
      return 1;
    case GgufType::kUint16:
    case GgufType::kInt16:
      return 2;
    case GgufType::kUint32:
    case GgufType::kInt32:
    case GgufType::kFloat32:
      return 4;
    case GgufType::kUint64:
    case GgufType::kInt64:
    case GgufType::kFloat64:
    case GgufType::kString:
      return 8;
    case GgufType::kArray:
      break;
  }
  return 0;
}

template <typename Widened, typename Stored>
absl::StatusOr<GgufValue> Widen(absl::StatusOr<Stored> stored) {
  if (!stored.ok()) {
    return stored.status();
  }
  return GgufValue(static_cast<Widened>(*stored));
}

}  // namespace

absl::StatusOr<GgufValue> GgufParser::ReadValue(uint32_t type, std::string_view field) {
  switch (static_cast<GgufType>(type)) {
    case GgufType::kUint8:
      return Widen<uint64_t>(cursor_.Read<uint8_t>(field));
    case GgufType::kInt8:
      return Widen<int64_t>(cursor_.Read<int8_t>(field));
    case GgufType::kUint16:
      return Widen<uint64_t>(cursor_.Read<uint16_t>(field));
    case GgufType::kInt16:
      return Widen<int64_t>(cursor_.Read<int16_t>(field));
    case GgufType::kUint32:
      return Widen<uint64_t>(cursor_.Read<uint32_t>(field));
    case GgufType::kInt32:
      return Widen<int64_t>(cursor_.Read<int32_t>(field));
    case GgufType::kFloat32:
      return Widen<double>(cursor_.Read<float>(field));
    case GgufType::kBool:
      return Widen<bool>(ReadBool(field));
    case GgufType::kString:
      return Widen<std::string_view>(cursor_.ReadString(kGgufMaxStringBytes, field));
    case GgufType::kArray: {
      ASSIGN_OR_RETURN(GgufArray array, ReadArray(field));
      return GgufValue(std::move(array));
    }
    case GgufType::kUint64:
      return Widen<uint64_t>(cursor_.Read<uint64_t>(field));
    case GgufType::kInt64:
      return Widen<int64_t>(cursor_.Read<int64_t>(field));
    case GgufType::kFloat64:
      return Widen<double>(cursor_.Read<double>(field));
  }
  return cursor_.Error(field, absl::StrCat("unknown value type ", type));
}

absl::StatusOr<bool> GgufParser::ReadBool(std::string_view field) {
  const uint64_t offset = cursor_.offset();
  ASSIGN_OR_RETURN(const uint8_t byte, cursor_.Read<uint8_t>(field));
  if (byte > 1) {
    return cursor_.ErrorAt(offset, field, absl::StrCat("is a bool of value ", byte));
  }
  return byte == 1;
}

absl::StatusOr<GgufArray> GgufParser::ReadArray(std::string_view field) {
  const uint64_t type_offset = cursor_.offset();
  ASSIGN_OR_RETURN(const uint32_t type_id, cursor_.Read<uint32_t>(field));
  const auto type = static_cast<GgufType>(type_id);
  const uint64_t min_element_bytes = MinElementBytes(type);
  if (min_element_bytes == 0) {
    return cursor_.ErrorAt(type_offset, field,
                           type == GgufType::kArray
                               ? "is an array of arrays, which is not supported"
                               : absl::StrCat("is an array of unknown type ", type_id));
  }
  const uint64_t count_offset = cursor_.offset();
  ASSIGN_OR_RETURN(const uint64_t count, cursor_.Read<uint64_t>(field));
  if (count > kGgufMaxArrayElements) {
    return cursor_.ErrorAt(
        count_offset, field,
        absl::StrCat("is an array of ", count, " elements, at most ", kGgufMaxArrayElements));
  }
  if (count * min_element_bytes > cursor_.remaining()) {
    return cursor_.ErrorAt(
        count_offset, field,
        absl::StrCat("is an array of ", count, " elements, the file has ", cursor_.remaining(),
                     " bytes left; it is cut short or damaged"));
  }
  switch (type) {
    case GgufType::kUint8:
      return ReadNumbers<uint8_t, uint64_t>(count, field);
    case GgufType::kInt8:
      return ReadNumbers<int8_t, int64_t>(count, field);
    case GgufType::kUint16:
      return ReadNumbers<uint16_t, uint64_t>(count, field);
    case GgufType::kInt16:
      return ReadNumbers<int16_t, int64_t>(count, field);
    case GgufType::kUint32:
      return ReadNumbers<uint32_t, uint64_t>(count, field);
    case GgufType::kInt32:
      return ReadNumbers<int32_t, int64_t>(count, field);
    case GgufType::kFloat32:
      return ReadNumbers<float, double>(count, field);
    case GgufType::kUint64:
      return ReadNumbers<uint64_t, uint64_t>(count, field);
    case GgufType::kInt64:
      return ReadNumbers<int64_t, int64_t>(count, field);
    case GgufType::kFloat64:
      return ReadNumbers<double, double>(count, field);
    case GgufType::kBool:
      return ReadBools(count, field);
    case GgufType::kString:
    case GgufType::kArray:  // refused above
      break;
  }
  return ReadStrings(count, field);
}

template <typename Stored, typename Widened>
absl::StatusOr<GgufArray> GgufParser::ReadNumbers(uint64_t count, std::string_view field) {
  ASSIGN_OR_RETURN(const absl::Span<const uint8_t> bytes,
                   cursor_.ReadBytes(count * sizeof(Stored), field));
  std::vector<Widened> numbers(count);
  for (uint64_t i = 0; i < count; ++i) {
    Stored stored;
    std::memcpy(&stored, bytes.data() + i * sizeof(Stored), sizeof(Stored));
    numbers[i] = static_cast<Widened>(stored);
  }
  return GgufArray(std::move(numbers));
}

absl::StatusOr<GgufArray> GgufParser::ReadBools(uint64_t count, std::string_view field) {
  std::vector<bool> bools(count);
  for (uint64_t i = 0; i < count; ++i) {
    ASSIGN_OR_RETURN(const bool value, ReadBool(field));
    bools[i] = value;
  }
  return GgufArray(std::move(bools));
}

absl::StatusOr<GgufArray> GgufParser::ReadStrings(uint64_t count, std::string_view field) {
  std::vector<std::string_view> strings(count);
  for (std::string_view& text : strings) {
    ASSIGN_OR_RETURN(text, cursor_.ReadString(kGgufMaxStringBytes, field));
  }
  return GgufArray(std::move(strings));
}

}  // namespace tandem
