#include "common/safetensors/nf4_tensor.h"

#include <cmath>
#include <cstring>

#include "absl/strings/str_cat.h"
#include "common/base/status_macros.h"
#include "common/safetensors/json_reader.h"

namespace tandem {
namespace {

constexpr int64_t kBlock = 64;
constexpr int64_t kBlockBytes = 36;
constexpr float kNf4[16] = {-1.0f,        -0.69619280f, -0.52507305f, -0.39491749f,
                            -0.28444138f, -0.18477343f, -0.09105003f, 0.0f,
                            0.07958030f,  0.16093020f,  0.24611230f,  0.33791524f,
                            0.44070983f,  0.56261700f,  0.72295684f,  1.0f};

absl::Status Bad(const std::string& name, const std::string& what) {
  return absl::InvalidArgumentError(absl::StrCat("NF4 weight '", name, "': ", what));
}

// The tensor NAME.SUFFIX of that type and number of elements.
absl::StatusOr<const SafetensorsTensor*> Part(const std::string& name, const char* suffix,
                                              const char* dtype, int64_t num_elements,
                                              const FindSafetensor& find) {
  const SafetensorsTensor* tensor = find(absl::StrCat(name, ".", suffix));
  if (tensor == nullptr) return Bad(name, absl::StrCat(suffix, " is missing"));
  const int64_t element_bytes = tensor->dtype == "F32" ? 4 : 1;
  if (tensor->dtype != dtype ||
      static_cast<int64_t>(tensor->data.size()) != num_elements * element_bytes) {
    return Bad(name, absl::StrCat(suffix, " has ", tensor->data.size(), " bytes of ", tensor->dtype,
                                  ", expected ", num_elements, " of ", dtype));
  }
  return tensor;
}

float FloatAt(const SafetensorsTensor& tensor, int64_t index) {
  float value;
  std::memcpy(&value, tensor.data.data() + index * 4, sizeof(value));
  return value;
}

// The absolute maximum of each block, unpacked.
absl::StatusOr<std::vector<float>> ReadAbsmax(const std::string& name, int64_t num_blocks,
                                              const nlohmann::json& state,
                                              const FindSafetensor& find) {
  std::vector<float> absmax(static_cast<size_t>(num_blocks));
  if (!state.contains("nested_blocksize")) {
    ASSIGN_OR_RETURN(const auto* plain, Part(name, "absmax", "F32", num_blocks, find));
    for (int64_t i = 0; i < num_blocks; ++i) absmax[i] = FloatAt(*plain, i);
    return absmax;
  }
  ASSIGN_OR_RETURN(const int64_t nested, internal::JsonInt(state, "nested_blocksize", 0));
  ASSIGN_OR_RETURN(const double offset, internal::JsonFloat(state, "nested_offset", 0.0));
  if (nested < 1 || nested > (1 << 20)) return Bad(name, "nested_blocksize makes no sense");
  const int64_t num_nested = (num_blocks + nested - 1) / nested;
  ASSIGN_OR_RETURN(const auto* codes, Part(name, "absmax", "U8", num_blocks, find));
  ASSIGN_OR_RETURN(const auto* scales, Part(name, "nested_absmax", "F32", num_nested, find));
  ASSIGN_OR_RETURN(const auto* map, Part(name, "nested_quant_map", "F32", 256, find));
  for (int64_t i = 0; i < num_blocks; ++i) {
    absmax[i] =
        FloatAt(*map, codes->data[i]) * FloatAt(*scales, i / nested) + static_cast<float>(offset);
  }
  return absmax;
}

}  // namespace

absl::StatusOr<Nf4Matrix> ReadNf4(const std::string& name, const FindSafetensor& find) {
  const SafetensorsTensor* packed = find(name);
  const SafetensorsTensor* text = find(name + ".quant_state.bitsandbytes__nf4");
  if (packed == nullptr || text == nullptr) return Bad(name, "its quant_state is missing");
  const auto state = nlohmann::json::parse(text->data.begin(), text->data.end(), nullptr,
                                           /*allow_exceptions=*/false);
  ASSIGN_OR_RETURN(const int64_t block, internal::JsonInt(state, "blocksize", 0));
  const auto shape = state.is_object() ? state.find("shape") : state.end();
  if (block != kBlock || !state.is_object() || shape == state.end() || !shape->is_array() ||
      shape->size() != 2 || !(*shape)[0].is_number_unsigned() ||
      !(*shape)[1].is_number_unsigned()) {
    return Bad(name, absl::StrCat("blocks of ", block, "; Tandem reads matrices in blocks of 64"));
  }
  Nf4Matrix matrix = {.num_rows = (*shape)[0].get<int64_t>(),
                      .num_cols = (*shape)[1].get<int64_t>()};
  int64_t num_elements = 0;
  if (matrix.num_rows < 1 || matrix.num_cols < 1 || matrix.num_cols % kBlock != 0 ||
      __builtin_mul_overflow(matrix.num_rows, matrix.num_cols, &num_elements) ||
      packed->dtype != "U8" || static_cast<int64_t>(packed->data.size()) != num_elements / 2) {
    return Bad(name, absl::StrCat(packed->data.size(), " bytes for ", matrix.num_rows, " x ",
                                  matrix.num_cols, " weights"));
  }
  ASSIGN_OR_RETURN(const auto* map, Part(name, "quant_map", "F32", 16, find));
  for (int64_t i = 0; i < 16; ++i) {
    if (!(std::fabs(FloatAt(*map, i) - kNf4[i]) < 1e-4f)) return Bad(name, "is no NF4 code");
  }
  const int64_t num_blocks = num_elements / kBlock;
  ASSIGN_OR_RETURN(const std::vector<float> absmax, ReadAbsmax(name, num_blocks, state, find));
  matrix.blocks.resize(static_cast<size_t>(num_blocks * kBlockBytes));
  for (int64_t i = 0; i < num_blocks; ++i) {
    uint8_t* out = matrix.blocks.data() + i * kBlockBytes;
    std::memcpy(out, &absmax[i], sizeof(float));
    std::memcpy(out + 4, packed->data.data() + i * kBlock / 2, kBlock / 2);
  }
  return matrix;
}

}  // namespace tandem
