#include "common/safetensors/safetensors_file.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <map>
#include <set>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/base/status_macros.h"
#include "nlohmann/json.hpp"

namespace tandem {
namespace {

using nlohmann::json;

constexpr uint64_t kMaxHeaderBytes = 100'000'000;  // the format's own limit
constexpr size_t kMaxTensors = 65536;
constexpr size_t kMaxDims = 8;

// Bytes of an element; 0 for a type that no weight of a llama model has.
int64_t ElementBytes(const std::string& dtype) {
  if (dtype == "F32" || dtype == "I32") return 4;
  if (dtype == "BF16" || dtype == "F16") return 2;
  if (dtype == "U8" || dtype == "I8") return 1;
  if (dtype == "F64" || dtype == "I64") return 8;
  return 0;
}

// A number that is a whole one and not negative; -1 for everything else.
int64_t Count(const json& value) {
  if (!value.is_number_unsigned()) return -1;
  const auto number = value.get<uint64_t>();
  return number > static_cast<uint64_t>(INT64_MAX) ? -1 : static_cast<int64_t>(number);
}

absl::Status Bad(const std::string& path, const std::string& name, const std::string& what) {
  return absl::InvalidArgumentError(absl::StrCat(path, ": tensor '", name, "' ", what));
}

absl::StatusOr<SafetensorsTensor> ReadTensor(const std::string& path, const std::string& name,
                                             const json& entry, absl::Span<const uint8_t> data) {
  const auto dtype = entry.find("dtype");
  const auto shape = entry.find("shape");
  const auto offsets = entry.find("data_offsets");
  if (!entry.is_object() || dtype == entry.end() || !dtype->is_string() || shape == entry.end() ||
      !shape->is_array() || shape->size() > kMaxDims || offsets == entry.end() ||
      !offsets->is_array() || offsets->size() != 2) {
    return Bad(path, name, "has no dtype, shape and data_offsets");
  }
  SafetensorsTensor tensor = {.dtype = dtype->get<std::string>()};
  int64_t num_bytes = ElementBytes(tensor.dtype);
  if (num_bytes == 0) return Bad(path, name, "is of a type that Tandem does not read");
  for (const json& dim : *shape) {
    const int64_t size = Count(dim);
    if (size < 1 || __builtin_mul_overflow(num_bytes, size, &num_bytes)) {
      return Bad(path, name, "has a shape that cannot be");
    }
    tensor.shape.push_back(size);
  }
  const int64_t begin = Count((*offsets)[0]);
  const int64_t end = Count((*offsets)[1]);
  if (begin < 0 || end < begin || end > static_cast<int64_t>(data.size()) ||
      end - begin != num_bytes) {
    return Bad(path, name,
               absl::StrCat("lies at ", begin, " to ", end, " of ", data.size(),
                            " bytes of data, its type and shape are ", num_bytes, " bytes"));
  }
  tensor.data = data.subspan(static_cast<size_t>(begin), static_cast<size_t>(num_bytes));
  return tensor;
}

}  // namespace

absl::StatusOr<std::shared_ptr<SafetensorsFile>> SafetensorsFile::Open(const std::string& path) {
  const int fd = open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  if (fd < 0) return absl::ErrnoToStatus(errno, absl::StrCat("cannot open ", path));
  std::shared_ptr<SafetensorsFile> file(new SafetensorsFile());
  struct stat info;
  void* start = MAP_FAILED;
  const bool is_file = fstat(fd, &info) == 0 && S_ISREG(info.st_mode) && info.st_size >= 10;
  if (is_file) {
    start = mmap(nullptr, static_cast<size_t>(info.st_size), PROT_READ, MAP_PRIVATE, fd, 0);
  }
  close(fd);
  if (!is_file) return absl::InvalidArgumentError(absl::StrCat(path, ": no safetensors file"));
  if (start == MAP_FAILED) return absl::ErrnoToStatus(errno, absl::StrCat("cannot map ", path));
  file->mapping_ = {static_cast<const uint8_t*>(start), static_cast<size_t>(info.st_size)};
  RETURN_IF_ERROR(file->Parse(path));
  return file;
}

SafetensorsFile::~SafetensorsFile() {
  if (!mapping_.empty()) munmap(const_cast<uint8_t*>(mapping_.data()), mapping_.size());
}

absl::Status SafetensorsFile::Parse(const std::string& path) {
  uint64_t header_bytes = 0;  // little-endian, as all machines that we run on
  std::memcpy(&header_bytes, mapping_.data(), sizeof(header_bytes));
  if (header_bytes > kMaxHeaderBytes || header_bytes > mapping_.size() - 8) {
    return absl::InvalidArgumentError(absl::StrCat(path, ": a header of ", header_bytes,
                                                   " bytes in a file of ", mapping_.size()));
  }
  const auto* text = reinterpret_cast<const char*>(mapping_.data()) + 8;
  std::set<std::string> names;
  std::string twice;
  // The last of two entries of one name would win, whatever reader checked the file before.
  const auto note_names = [&](int depth, json::parse_event_t event, const json& value) {
    if (depth != 1 || event != json::parse_event_t::key) return true;
    const auto name = value.get<std::string>();
    if (!names.insert(name).second) twice = name;
    return true;
  };
  const json header =
      json::parse(text, text + header_bytes, note_names, /*allow_exceptions=*/false);
  if (!twice.empty()) return Bad(path, twice, "is there twice");
  if (!header.is_object()) {
    return absl::InvalidArgumentError(absl::StrCat(path, ": the header is no JSON object"));
  }
  if (header.size() > kMaxTensors) {
    return absl::InvalidArgumentError(absl::StrCat(path, ": ", header.size(), " tensors"));
  }
  const absl::Span<const uint8_t> data = mapping_.subspan(8 + header_bytes);
  for (const auto& [name, entry] : header.items()) {
    if (name == "__metadata__") continue;
    ASSIGN_OR_RETURN(SafetensorsTensor tensor, ReadTensor(path, name, entry, data));
    tensors_.emplace(name, std::move(tensor));
  }
  return CheckTiling(path, data);
}

// As the format wants it: one after another, with nothing between them or at the end.
absl::Status SafetensorsFile::CheckTiling(const std::string& path,
                                          absl::Span<const uint8_t> data) const {
  std::map<const uint8_t*, const std::string*> by_place;
  for (const auto& [name, tensor] : tensors_) {
    const auto [other, is_first] = by_place.emplace(tensor.data.data(), &name);
    if (!is_first) return Bad(path, name, absl::StrCat("lies where '", *other->second, "' does"));
  }
  const uint8_t* end = data.data();
  for (const auto& [begin, name] : by_place) {
    if (begin != end) {
      return Bad(path, *name, begin < end ? "overlaps the one before it" : "comes after a gap");
    }
    end += tensors_.at(*name).data.size();
  }
  if (end == data.data() + data.size()) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat(path, ": ", data.data() + data.size() - end,
                                                 " bytes at its end are of no tensor"));
}

}  // namespace tandem
