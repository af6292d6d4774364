#include "common/gguf/gguf_builder.h"

#include <deque>
#include <utility>

#include "absl/strings/str_cat.h"

namespace tandem {

struct GgufBuilder::Backing {
  std::deque<std::string> texts;  // whose characters do not move
  std::vector<std::shared_ptr<void>> kept;
};

GgufBuilder::GgufBuilder(const std::string& path, int64_t file_bytes)
    : backing_(std::make_shared<Backing>()), file_(new GgufFile()) {
  file_->path_ = path;
  file_->file_bytes_ = file_bytes;
}

std::string_view GgufBuilder::Text(std::string text) {
  backing_->texts.push_back(std::move(text));
  return backing_->texts.back();
}

void GgufBuilder::Add(const std::string& key, GgufValue value) {
  const std::string_view name = Text(key);
  file_->metadata_index_[name] = static_cast<int32_t>(file_->metadata_.size());
  file_->metadata_.emplace_back(name, std::move(value));
}

void GgufBuilder::AddInt(const std::string& key, int64_t value) { Add(key, value); }
void GgufBuilder::AddFloat(const std::string& key, double value) { Add(key, value); }
void GgufBuilder::AddBool(const std::string& key, bool value) { Add(key, value); }
void GgufBuilder::AddString(const std::string& key, std::string value) {
  Add(key, Text(std::move(value)));
}

void GgufBuilder::AddStrings(const std::string& key, std::vector<std::string> values) {
  std::vector<std::string_view> views;
  views.reserve(values.size());
  for (std::string& value : values) views.push_back(Text(std::move(value)));
  Add(key, GgufArray(std::move(views)));
}

void GgufBuilder::AddInts(const std::string& key, std::vector<int64_t> values) {
  Add(key, GgufArray(std::move(values)));
}

void GgufBuilder::AddFloats(const std::string& key, std::vector<double> values) {
  Add(key, GgufArray(std::move(values)));
}

absl::Status GgufBuilder::AddTensor(const std::string& name, DType dtype, std::vector<int64_t> dims,
                                    absl::Span<const uint8_t> data) {
  const DTypeBlock block = BlockOf(dtype);
  int64_t rows = 1;
  for (size_t i = 1; i < dims.size(); ++i) rows *= dims[i];
  if (dims.empty() || dims[0] < 1 || rows < 1 || dims[0] % block.elements != 0 ||
      dims[0] / block.elements * block.bytes * rows != static_cast<int64_t>(data.size())) {
    return absl::InvalidArgumentError(absl::StrCat(file_->path_, ": ", name, " of type ",
                                                   DTypeName(dtype), " has ", data.size(),
                                                   " bytes, which do not fit its ", rows, " rows"));
  }
  if (file_->FindTensor(name) != nullptr) {
    return absl::InvalidArgumentError(absl::StrCat(file_->path_, ": there are two of ", name));
  }
  const std::string_view text = Text(name);
  file_->tensor_index_[text] = static_cast<int32_t>(file_->tensors_.size());
  file_->tensors_.push_back({.name = text, .dtype = dtype, .dims = std::move(dims), .data = data});
  return absl::OkStatus();
}

void GgufBuilder::Keep(std::shared_ptr<void> backing) {
  backing_->kept.push_back(std::move(backing));
}

std::unique_ptr<GgufFile> GgufBuilder::Build() {
  file_->backing_ = std::move(backing_);
  return std::move(file_);
}

}  // namespace tandem
