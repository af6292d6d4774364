#include "common/gguf/gguf_writer.h"

#include <cerrno>
#include <cstdio>
#include <cstring>

#include "absl/strings/str_cat.h"
#include "common/base/check.h"
#include "common/gguf/gguf_parser.h"

namespace tandem {
namespace {

template <typename T>
void Append(std::string& out, T value) {
  char bytes[sizeof(T)];
  std::memcpy(bytes, &value, sizeof(T));
  out.append(bytes, sizeof(T));
}

void AppendString(std::string& out, std::string_view text) {
  Append<uint64_t>(out, text.size());
  out.append(text);
}

void PadTo(std::string& out, uint32_t alignment) {
  out.append((alignment - out.size() % alignment) % alignment, '\0');
}

template <typename T>
std::string Bytes(T value) {
  std::string bytes;
  Append(bytes, value);
  return bytes;
}

std::string ArrayHead(GgufType type, uint64_t count) {
  std::string head = Bytes(static_cast<uint32_t>(type));
  Append<uint64_t>(head, count);
  return head;
}

template <typename T>
std::string NumberArray(GgufType type, absl::Span<const T> values) {
  std::string bytes = ArrayHead(type, values.size());
  for (const T value : values) {
    Append(bytes, value);
  }
  return bytes;
}

constexpr uint32_t Id(GgufType type) { return static_cast<uint32_t>(type); }

}  // namespace

GgufWriter::GgufWriter(uint32_t alignment) : alignment_(alignment) {
  TANDEM_CHECK(alignment != 0 && (alignment & (alignment - 1)) == 0);
  if (alignment != kGgufDefaultAlignment) {
    AddUint32("general.alignment", alignment);
  }
}

void GgufWriter::AddRaw(std::string_view key, uint32_t type, std::string_view bytes) {
  AppendString(metadata_, key);
  Append(metadata_, type);
  metadata_.append(bytes);
  ++num_keys_;
}

void GgufWriter::AddUint32(std::string_view key, uint32_t value) {
  AddRaw(key, Id(GgufType::kUint32), Bytes(value));
}

void GgufWriter::AddUint64(std::string_view key, uint64_t value) {
  AddRaw(key, Id(GgufType::kUint64), Bytes(value));
}

void GgufWriter::AddInt32(std::string_view key, int32_t value) {
  AddRaw(key, Id(GgufType::kInt32), Bytes(value));
}

void GgufWriter::AddFloat(std::string_view key, float value) {
  AddRaw(key, Id(GgufType::kFloat32), Bytes(value));
}

void GgufWriter::AddBool(std::string_view key, bool value) {
  AddRaw(key, Id(GgufType::kBool), Bytes<uint8_t>(value ? 1 : 0));
}

void GgufWriter::AddString(std::string_view key, std::string_view value) {
  std::string bytes;
  AppendString(bytes, value);
  AddRaw(key, Id(GgufType::kString), bytes);
}

void GgufWriter::AddStrings(std::string_view key, absl::Span<const std::string> values) {
  std::string bytes = ArrayHead(GgufType::kString, values.size());
  for (const std::string& value : values) {
    AppendString(bytes, value);
  }
  AddRaw(key, Id(GgufType::kArray), bytes);
}

void GgufWriter::AddFloats(std::string_view key, absl::Span<const float> values) {
  AddRaw(key, Id(GgufType::kArray), NumberArray(GgufType::kFloat32, values));
}

void GgufWriter::AddInts(std::string_view key, absl::Span<const int32_t> values) {
  AddRaw(key, Id(GgufType::kArray), NumberArray(GgufType::kInt32, values));
}

void GgufWriter::AddTensor(std::string_view name, DType dtype, absl::Span<const int64_t> dims,
                           absl::Span<const uint8_t> data) {
  PadTo(data_, alignment_);
  AppendString(infos_, name);
  Append(infos_, static_cast<uint32_t>(dims.size()));
  for (const int64_t dim : dims) {
    Append(infos_, dim);
  }
  Append(infos_, static_cast<uint32_t>(dtype));
  Append<uint64_t>(infos_, data_.size());
  data_.append(reinterpret_cast<const char*>(data.data()), data.size());
  ++num_tensors_;
}

void GgufWriter::AddTensor(std::string_view name, absl::Span<const int64_t> dims,
                           absl::Span<const float> values) {
  AddTensor(name, DType::kF32, dims,
            absl::MakeConstSpan(reinterpret_cast<const uint8_t*>(values.data()),
                                values.size() * sizeof(float)));
}

std::string GgufWriter::Build() const {
  std::string file = "GGUF";
  Append<uint32_t>(file, 3);
  Append(file, num_tensors_);
  Append(file, num_keys_);
  file.append(metadata_);
  file.append(infos_);
  if (num_tensors_ > 0) {
    PadTo(file, alignment_);
    file.append(data_);
  }
  return file;
}

absl::Status GgufWriter::WriteFile(const std::string& path) const {
  const std::string bytes = Build();
  std::FILE* file = std::fopen(path.c_str(), "wb");
  if (file == nullptr) {
    return absl::UnavailableError(absl::StrCat(path, ": ", std::strerror(errno)));
  }
  const bool written = std::fwrite(bytes.data(), 1, bytes.size(), file) == bytes.size();
  const int write_error = errno;
  if (std::fclose(file) != 0 || !written) {
    return absl::UnavailableError(
        absl::StrCat(path, ": ", std::strerror(written ? errno : write_error)));
  }
  return absl::OkStatus();
}

}  // namespace tandem
