#include "common/gguf/gguf_parser.h"

#include <algorithm>
#include <bit>
#include <numeric>
#include <utility>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "common/base/status_macros.h"

namespace tandem {
namespace {

constexpr std::string_view kMagic = "GGUF";
constexpr uint32_t kVersion = 3;
constexpr std::string_view kAlignmentKey = "general.alignment";
constexpr uint32_t kMaxDims = 4;
// The least that one entry takes: a name of one byte, a type and a value of one
// byte; a name of one byte, one dimension, a type and an offset.
constexpr uint64_t kMinKeyBytes = 8 + 1 + 4 + 1;
constexpr uint64_t kMinTensorInfoBytes = 8 + 1 + 4 + 8 + 4 + 8;

// Names go into messages and on terminals: printable ASCII, as the specification
// wants of keys.
bool IsPrintable(std::string_view name) {
  return !name.empty() &&
         std::all_of(name.begin(), name.end(), [](char c) { return c >= 0x20 && c < 0x7f; });
}

std::string Named(const char* kind, std::string_view name) {
  return absl::StrFormat("%s '%s'", kind, name);
}

// Bytes of a tensor of whole rows of whole blocks; false when it cannot be counted
// in 63 bits.
bool TensorBytes(const GgufTensor& tensor, uint64_t& num_bytes) {
  const DTypeBlock block = BlockOf(tensor.dtype);
  int64_t bytes = 0;
  int64_t elements = 1;  // must be countable too: num_elements() is an int64
  if (__builtin_mul_overflow(tensor.dims[0] / block.elements, int64_t{block.bytes}, &bytes)) {
    return false;
  }
  for (size_t i = 0; i < tensor.dims.size(); ++i) {
    if (__builtin_mul_overflow(elements, tensor.dims[i], &elements) ||
        (i > 0 && __builtin_mul_overflow(bytes, tensor.dims[i], &bytes))) {
      return false;
    }
  }
  num_bytes = static_cast<uint64_t>(bytes);
  return true;
}

}  // namespace

absl::Status GgufParser::Parse() {
  RETURN_IF_ERROR(ParseHeader());
  RETURN_IF_ERROR(ParseMetadata());
  RETURN_IF_ERROR(ParseAlignment());
  RETURN_IF_ERROR(ParseTensorInfos());
  return PlaceTensors();
}

absl::Status GgufParser::ParseHeader() {
  ASSIGN_OR_RETURN(const absl::Span<const uint8_t> magic,
                   cursor_.ReadBytes(kMagic.size(), "magic"));
  if (!std::equal(magic.begin(), magic.end(), kMagic.begin())) {
    return cursor_.ErrorAt(0, "magic", "not a GGUF file");
  }
  const uint64_t version_offset = cursor_.offset();
  ASSIGN_OR_RETURN(const uint32_t version, cursor_.Read<uint32_t>("version"));
  if (version != kVersion) {
    const uint32_t swapped = __builtin_bswap32(version);
    return cursor_.ErrorAt(
        version_offset, "version",
        swapped >= 1 && swapped <= kVersion
            ? absl::StrCat("big-endian GGUF is not supported; convert it to little-endian")
            : absl::StrCat("not a supported GGUF: version ", version, ", need ", kVersion,
                           "; convert the model again"));
  }
  const uint64_t tensor_count_offset = cursor_.offset();
  ASSIGN_OR_RETURN(num_tensors_, cursor_.Read<uint64_t>("tensor_count"));
  const uint64_t kv_count_offset = cursor_.offset();
  ASSIGN_OR_RETURN(num_keys_, cursor_.Read<uint64_t>("metadata_kv_count"));
  if (num_tensors_ > kGgufMaxTensors) {
    return cursor_.ErrorAt(tensor_count_offset, "tensor_count",
                           absl::StrCat(num_tensors_, " tensors, at most ", kGgufMaxTensors));
  }
  if (num_keys_ > kGgufMaxKeys) {
    return cursor_.ErrorAt(kv_count_offset, "metadata_kv_count",
                           absl::StrCat(num_keys_, " keys, at most ", kGgufMaxKeys));
  }
  // Neither product can wrap: both counts are below 2^17.
  const uint64_t needed = num_keys_ * kMinKeyBytes + num_tensors_ * kMinTensorInfoBytes;
  if (needed > cursor_.remaining()) {
    return cursor_.ErrorAt(tensor_count_offset, "tensor_count",
                           absl::StrCat(num_tensors_, " tensors and ", num_keys_,
                                        " keys need at least ", needed, " bytes, the file has ",
                                        cursor_.remaining(), " left; it is cut short or damaged"));
  }
  return absl::OkStatus();
}

absl::Status GgufParser::ParseMetadata() {
  file_.metadata_.reserve(num_keys_);
  file_.metadata_index_.reserve(num_keys_);
  for (uint64_t i = 0; i < num_keys_; ++i) {
    const uint64_t key_offset = cursor_.offset();
    const std::string ordinal = absl::StrCat("metadata key ", i);
    ASSIGN_OR_RETURN(const std::string_view key, cursor_.ReadString(kGgufMaxKeyBytes, ordinal));
    if (!IsPrintable(key)) {
      return cursor_.ErrorAt(key_offset, ordinal,
                             absl::StrCat("'", absl::CHexEscape(std::string(key.substr(0, 64))),
                                          "' is empty or not printable ASCII"));
    }
    const std::string field = Named("metadata", key.substr(0, 128));
    if (!file_.metadata_index_.emplace(key, static_cast<int32_t>(i)).second) {
      return cursor_.ErrorAt(key_offset, field, "the key is there twice");
    }
    ASSIGN_OR_RETURN(const uint32_t type, cursor_.Read<uint32_t>(field));
    if (key == kAlignmentKey) {
      alignment_offset_ = cursor_.offset();
    }
    absl::StatusOr<GgufValue> value = ReadValue(type, field);
    RETURN_IF_ERROR(value.status());
    file_.metadata_.emplace_back(key, *std::move(value));
  }
  return absl::OkStatus();
}

absl::Status GgufParser::ParseAlignment() {
  const GgufValue* value = file_.FindValue(kAlignmentKey);
  if (value == nullptr) {
    return absl::OkStatus();
  }
  const auto* alignment = std::get_if<uint64_t>(value);
  if (alignment == nullptr || !std::has_single_bit(*alignment) || *alignment < kGgufMinAlignment ||
      *alignment > kGgufMaxAlignment) {
    return cursor_.ErrorAt(
        alignment_offset_, Named("metadata", kAlignmentKey),
        absl::StrCat(
            alignment == nullptr ? "not an unsigned number" : absl::StrCat("is ", *alignment),
            "; need a power of two, ", kGgufMinAlignment, " to ", kGgufMaxAlignment));
  }
  alignment_ = *alignment;
  return absl::OkStatus();
}

absl::Status GgufParser::ParseTensorInfos() {
  file_.tensors_.reserve(num_tensors_);
  file_.tensor_index_.reserve(num_tensors_);
  extents_.reserve(num_tensors_);
  for (uint64_t i = 0; i < num_tensors_; ++i) {
    RETURN_IF_ERROR(ParseTensorInfo(i));
  }
  return absl::OkStatus();
}

absl::Status GgufParser::ParseTensorInfo(uint64_t index) {
  const uint64_t info_offset = cursor_.offset();
  GgufTensor tensor;
  const std::string ordinal = absl::StrCat("tensor ", index, " name");
  ASSIGN_OR_RETURN(tensor.name, cursor_.ReadString(kGgufMaxTensorNameBytes, ordinal));
  if (!IsPrintable(tensor.name)) {
    return cursor_.ErrorAt(info_offset, ordinal,
                           absl::StrCat("'", absl::CHexEscape(std::string(tensor.name)),
                                        "' is empty or not printable ASCII"));
  }
  const std::string field = Named("tensor", tensor.name);
  if (!file_.tensor_index_.emplace(tensor.name, static_cast<int32_t>(index)).second) {
    return cursor_.ErrorAt(info_offset, field, "the name is there twice");
  }
  ASSIGN_OR_RETURN(const uint64_t num_bytes, ParseTensorShape(tensor, field));
  const uint64_t place_offset = cursor_.offset();
  ASSIGN_OR_RETURN(const uint64_t data_offset,
                   cursor_.Read<uint64_t>(absl::StrCat(field, " offset")));
  if (data_offset % alignment_ != 0) {
    return cursor_.ErrorAt(
        place_offset, absl::StrCat(field, " offset"),
        absl::StrCat(data_offset, " is no multiple of the alignment, ", alignment_));
  }
  file_.tensors_.push_back(std::move(tensor));
  extents_.push_back({place_offset, data_offset, num_bytes});
  return absl::OkStatus();
}

absl::StatusOr<uint64_t> GgufParser::ParseTensorShape(GgufTensor& tensor,
                                                      const std::string& field) {
  const std::string shape_field = absl::StrCat(field, " dims");
  const uint64_t shape_offset = cursor_.offset();
  ASSIGN_OR_RETURN(const uint32_t num_dims, cursor_.Read<uint32_t>(shape_field));
  if (num_dims < 1 || num_dims > kMaxDims) {
    return cursor_.ErrorAt(shape_offset, shape_field,
                           absl::StrCat(num_dims, " dimensions, need 1 to ", kMaxDims));
  }
  for (uint32_t i = 0; i < num_dims; ++i) {
    const uint64_t dim_offset = cursor_.offset();
    ASSIGN_OR_RETURN(const int64_t dim, cursor_.Read<int64_t>(shape_field));
    if (dim < 1) {
      return cursor_.ErrorAt(dim_offset, shape_field,
                             absl::StrCat("dimension ", i, " is ", dim, ", need at least 1"));
    }
    tensor.dims.push_back(dim);
  }
  const uint64_t type_offset = cursor_.offset();
  const std::string type_field = absl::StrCat(field, " type");
  ASSIGN_OR_RETURN(const uint32_t type, cursor_.Read<uint32_t>(type_field));
  tensor.dtype = static_cast<DType>(type);
  const DTypeBlock block = BlockOf(tensor.dtype);
  if (block.elements == 0) {
    return cursor_.ErrorAt(type_offset, type_field,
                           absl::StrCat("type id ", type,
                                        " is not one that Tandem reads; convert to F32, F16, BF16, "
                                        "Q8_0, Q4_0, Q4_1, Q4_K, Q5_K, Q6_K or IQ4_NL"));
  }
  if (tensor.dims[0] % block.elements != 0) {
    return cursor_.ErrorAt(
        shape_offset, shape_field,
        absl::StrCat("rows of ", tensor.dims[0], " elements, ", DTypeName(tensor.dtype),
                     " has blocks of ", block.elements));
  }
  uint64_t num_bytes = 0;
  if (!TensorBytes(tensor, num_bytes)) {
    return cursor_.ErrorAt(shape_offset, shape_field, "the tensor's size overflows 63 bits");
  }
  return num_bytes;
}

absl::Status GgufParser::PlaceTensors() {
  if (num_tensors_ == 0) {
    return absl::OkStatus();
  }
  const uint64_t padding = (alignment_ - cursor_.offset() % alignment_) % alignment_;
  RETURN_IF_ERROR(cursor_.ReadBytes(padding, "padding before the tensor data").status());
  const uint64_t data_start = cursor_.offset();
  const uint64_t data_bytes = cursor_.remaining();
  for (uint64_t i = 0; i < num_tensors_; ++i) {
    const Extent& extent = extents_[i];
    GgufTensor& tensor = file_.tensors_[i];
    if (extent.data_offset > data_bytes || extent.num_bytes > data_bytes - extent.data_offset) {
      return cursor_.ErrorAt(extent.info_offset, Named("tensor", tensor.name),
                             absl::StrCat("takes ", extent.num_bytes, " bytes from ",
                                          extent.data_offset, " of the data section, which has ",
                                          data_bytes, "; the file is cut short or damaged"));
    }
    tensor.data = file_.mapping_.subspan(data_start + extent.data_offset, extent.num_bytes);
  }
  std::vector<int32_t> order(num_tensors_);
  std::iota(order.begin(), order.end(), 0);
  std::sort(order.begin(), order.end(), [this](int32_t a, int32_t b) {
    return extents_[a].data_offset < extents_[b].data_offset;
  });
  for (uint64_t i = 1; i < num_tensors_; ++i) {
    const Extent& previous = extents_[order[i - 1]];
    const Extent& extent = extents_[order[i]];
    if (extent.data_offset - previous.data_offset < previous.num_bytes) {
      return cursor_.ErrorAt(extent.info_offset, Named("tensor", file_.tensors_[order[i]].name),
                             Named("overlaps tensor", file_.tensors_[order[i - 1]].name));
    }
  }
  return absl::OkStatus();
}

}  // namespace tandem
