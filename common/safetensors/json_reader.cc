#include "common/safetensors/json_reader.h"

#include <filesystem>
#include <fstream>
#include <system_error>

#include "absl/strings/str_cat.h"

namespace tandem::internal {
namespace {

using nlohmann::json;

constexpr uintmax_t kMaxFileBytes = uintmax_t{256} << 20;

// nullptr where there is none or it is null.
const json* Find(const json& object, const char* key) {
  if (!object.is_object()) return nullptr;
  const auto found = object.find(key);
  return found == object.end() || found->is_null() ? nullptr : &*found;
}

absl::Status WrongType(const char* key, const char* wanted) {
  return absl::InvalidArgumentError(absl::StrCat("'", key, "' is not ", wanted));
}

}  // namespace

absl::StatusOr<json> ReadJsonFile(const std::string& path) {
  std::error_code error;
  const uintmax_t bytes = std::filesystem::file_size(path, error);
  if (error) return absl::NotFoundError(absl::StrCat(path, ": ", error.message()));
  if (bytes > kMaxFileBytes) {
    return absl::InvalidArgumentError(absl::StrCat(path, ": ", bytes, " bytes of JSON"));
  }
  std::ifstream file(path, std::ios::binary);
  json value = json::parse(file, nullptr, /*allow_exceptions=*/false);
  if (!value.is_object()) {
    return absl::InvalidArgumentError(absl::StrCat(path, ": no JSON object"));
  }
  return value;
}

absl::StatusOr<int64_t> JsonInt(const json& object, const char* key, int64_t fallback) {
  const json* value = Find(object, key);
  if (value == nullptr) return fallback;
  if (!value->is_number_integer()) return WrongType(key, "a whole number");
  if (value->is_number_unsigned() && value->get<uint64_t>() > uint64_t{INT64_MAX}) {
    return WrongType(key, "a number of 63 bits");
  }
  return value->get<int64_t>();
}

absl::StatusOr<double> JsonFloat(const json& object, const char* key, double fallback) {
  const json* value = Find(object, key);
  if (value == nullptr) return fallback;
  if (!value->is_number()) return WrongType(key, "a number");
  return value->get<double>();
}

absl::StatusOr<bool> JsonBool(const json& object, const char* key, bool fallback) {
  const json* value = Find(object, key);
  if (value == nullptr) return fallback;
  if (!value->is_boolean()) return WrongType(key, "true or false");
  return value->get<bool>();
}

absl::StatusOr<std::string> JsonString(const json& object, const char* key,
                                       const std::string& fallback) {
  const json* value = Find(object, key);
  if (value == nullptr) return fallback;
  if (!value->is_string()) return WrongType(key, "a text");
  return value->get<std::string>();
}

json JsonObject(const json& object, const char* key) {
  const json* value = Find(object, key);
  return value != nullptr && value->is_object() ? *value : json::object();
}

}  // namespace tandem::internal
