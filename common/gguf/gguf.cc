#include "common/gguf/gguf.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cmath>
#include <cstring>
#include <limits>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "common/base/status_macros.h"
#include "common/gguf/gguf_parser.h"

namespace tandem {
namespace {

// Smaller files hold no header; mmap would refuse an empty one with EINVAL.
constexpr int64_t kHeaderBytes = 24;

absl::Status SystemError(const std::string& path, const char* call, int error) {
  const std::string message = absl::StrCat(path, ": ", call, ": ", std::strerror(error));
  switch (error) {
    case ENOENT:
    case ENOTDIR:
      return absl::NotFoundError(message);
    case EACCES:
    case EPERM:
      return absl::PermissionDeniedError(message);
    case ENOMEM:
    case EMFILE:
    case ENFILE:
      return absl::ResourceExhaustedError(message);
    default:
      return absl::InvalidArgumentError(message);
  }
}

absl::StatusOr<absl::Span<const uint8_t>> MapOpened(int fd, const std::string& path) {
  struct stat info;
  if (fstat(fd, &info) != 0) {
    return SystemError(path, "fstat", errno);
  }
  if (!S_ISREG(info.st_mode)) {
    return absl::InvalidArgumentError(absl::StrCat(path, ": not a regular file"));
  }
  if (info.st_size < kHeaderBytes) {
    return absl::InvalidArgumentError(absl::StrCat(path, ": not a GGUF file: ", info.st_size,
                                                   " bytes, a header alone has ", kHeaderBytes));
  }
  const auto num_bytes = static_cast<size_t>(info.st_size);
  void* start = mmap(nullptr, num_bytes, PROT_READ, MAP_PRIVATE, fd, 0);
  if (start == MAP_FAILED) {
    return SystemError(path, "mmap", errno);
  }
  return absl::Span<const uint8_t>(static_cast<const uint8_t*>(start), num_bytes);
}

absl::StatusOr<absl::Span<const uint8_t>> MapFile(const std::string& path) {
  // O_NONBLOCK: opening a FIFO must not wait for a writer.
  const int fd = open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  if (fd < 0) {
    return SystemError(path, "open", errno);
  }
  absl::StatusOr<absl::Span<const uint8_t>> mapping = MapOpened(fd, path);
  close(fd);  // the mapping stays
  return mapping;
}

absl::Status WrongType(const std::string& path, std::string_view key, std::string_view wanted) {
  return absl::InvalidArgumentError(
      absl::StrFormat("%s: metadata '%s' is not %s", path, key, wanted));
}

absl::Status OutOfRange(const std::string& path, std::string_view key, std::string_view what) {
  return absl::InvalidArgumentError(absl::StrFormat("%s: metadata '%s': %s", path, key, what));
}

}  // namespace

int64_t GgufTensor::num_elements() const {
  int64_t product = 1;
  for (const int64_t dim : dims) {
    product *= dim;
  }
  return product;
}

absl::StatusOr<std::unique_ptr<GgufFile>> GgufFile::Open(const std::string& path) {
  std::unique_ptr<GgufFile> file(new GgufFile());
  file->path_ = path;
  ASSIGN_OR_RETURN(file->mapping_, MapFile(path));
  file->file_bytes_ = static_cast<int64_t>(file->mapping_.size());
  RETURN_IF_ERROR(GgufParser(*file).Parse());
  return file;
}

GgufFile::~GgufFile() {
  if (!mapping_.empty()) {
    munmap(const_cast<uint8_t*>(mapping_.data()), mapping_.size());
  }
}

const GgufTensor* GgufFile::FindTensor(std::string_view name) const {
  const auto found = tensor_index_.find(name);
  return found == tensor_index_.end() ? nullptr : &tensors_[found->second];
}

const GgufValue* GgufFile::FindValue(std::string_view key) const {
  const auto found = metadata_index_.find(key);
  return found == metadata_index_.end() ? nullptr : &metadata_[found->second].second;
}

absl::StatusOr<const GgufValue*> GgufFile::Value(std::string_view key) const {
  const GgufValue* value = FindValue(key);
  if (value == nullptr) {
    return absl::NotFoundError(absl::StrFormat("%s: metadata '%s' is missing", path_, key));
  }
  return value;
}

absl::StatusOr<const GgufArray*> GgufFile::Array(std::string_view key,
                                                 std::string_view wanted) const {
  ASSIGN_OR_RETURN(const GgufValue* value, Value(key));
  const auto* array = std::get_if<GgufArray>(value);
  if (array == nullptr) {
    return WrongType(path_, key, wanted);
  }
  return array;
}

absl::StatusOr<int64_t> GgufFile::GetInt(std::string_view key) const {
  ASSIGN_OR_RETURN(const GgufValue* value, Value(key));
  if (const auto* number = std::get_if<int64_t>(value)) {
    return *number;
  }
  const auto* number = std::get_if<uint64_t>(value);
  if (number == nullptr) {
    return WrongType(path_, key, "an integer");
  }
  if (*number > static_cast<uint64_t>(std::numeric_limits<int64_t>::max())) {
    return OutOfRange(path_, key, absl::StrCat(*number, " is above 2^63 - 1"));
  }
  return static_cast<int64_t>(*number);
}

absl::StatusOr<double> GgufFile::GetFloat(std::string_view key) const {
  ASSIGN_OR_RETURN(const GgufValue* value, Value(key));
  if (const auto* number = std::get_if<double>(value)) {
    return *number;
  }
  return WrongType(path_, key, "a float");
}

absl::StatusOr<bool> GgufFile::GetBool(std::string_view key) const {
  ASSIGN_OR_RETURN(const GgufValue* value, Value(key));
  if (const auto* flag = std::get_if<bool>(value)) {
    return *flag;
  }
  return WrongType(path_, key, "a bool");
}

absl::StatusOr<std::string_view> GgufFile::GetString(std::string_view key) const {
  ASSIGN_OR_RETURN(const GgufValue* value, Value(key));
  if (const auto* text = std::get_if<std::string_view>(value)) {
    return *text;
  }
  return WrongType(path_, key, "a string");
}

absl::StatusOr<absl::Span<const std::string_view>> GgufFile::GetStrings(
    std::string_view key) const {
  constexpr std::string_view kWanted = "an array of strings";
  ASSIGN_OR_RETURN(const GgufArray* array, Array(key, kWanted));
  if (const auto* strings = std::get_if<std::vector<std::string_view>>(array)) {
    return absl::MakeConstSpan(*strings);
  }
  return WrongType(path_, key, kWanted);
}

absl::StatusOr<std::vector<float>> GgufFile::GetFloats(std::string_view key) const {
  constexpr std::string_view kWanted = "an array of floats";
  ASSIGN_OR_RETURN(const GgufArray* array, Array(key, kWanted));
  const auto* doubles = std::get_if<std::vector<double>>(array);
  if (doubles == nullptr) {
    return WrongType(path_, key, kWanted);
  }
  std::vector<float> floats;
  floats.reserve(doubles->size());
  for (const double value : *doubles) {
    if (std::isfinite(value) && std::abs(value) > std::numeric_limits<float>::max()) {
      return OutOfRange(path_, key, absl::StrCat(value, " does not fit a float"));
    }
    floats.push_back(static_cast<float>(value));
  }
  return floats;
}

absl::StatusOr<std::vector<int64_t>> GgufFile::GetInts(std::string_view key) const {
  constexpr std::string_view kWanted = "an array of integers";
  ASSIGN_OR_RETURN(const GgufArray* array, Array(key, kWanted));
  if (const auto* numbers = std::get_if<std::vector<int64_t>>(array)) {
    return *numbers;
  }
  const auto* numbers = std::get_if<std::vector<uint64_t>>(array);
  if (numbers == nullptr) {
    return WrongType(path_, key, kWanted);
  }
  std::vector<int64_t> widened;
  widened.reserve(numbers->size());
  for (const uint64_t value : *numbers) {
    if (value > static_cast<uint64_t>(std::numeric_limits<int64_t>::max())) {
      return OutOfRange(path_, key, absl::StrCat(value, " is above 2^63 - 1"));
    }
    widened.push_back(static_cast<int64_t>(value));
  }
  return widened;
}

}  // namespace tandem
