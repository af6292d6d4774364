// JSON files of a checkpoint, and their fields, without exceptions. Private to safetensors/.
#pragma once

#include <cstdint>
#include <string>

#include "absl/status/statusor.h"
#include "nlohmann/json.hpp"

namespace tandem::internal {

// A JSON object from a file of at most 256 MiB. NOT_FOUND, or INVALID_ARGUMENT when it is none.
absl::StatusOr<nlohmann::json> ReadJsonFile(const std::string& path);

// Fields of `object`; the fallback where there is none or it is null. INVALID_ARGUMENT naming
// the field when it is of another type.
absl::StatusOr<int64_t> JsonInt(const nlohmann::json& object, const char* key, int64_t fallback);
absl::StatusOr<double> JsonFloat(const nlohmann::json& object, const char* key, double fallback);
absl::StatusOr<bool> JsonBool(const nlohmann::json& object, const char* key, bool fallback);
absl::StatusOr<std::string> JsonString(const nlohmann::json& object, const char* key,
                                       const std::string& fallback);
// The object below `key`; an empty one where there is none.
nlohmann::json JsonObject(const nlohmann::json& object, const char* key);

}  // namespace tandem::internal
