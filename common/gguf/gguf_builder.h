// Makes a GgufFile of a model that is stored in another way, so that everything behind it
// needs to know one kind of model file.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/types/span.h"
#include "common/gguf/gguf.h"
#include "common/tensor/dtype.h"

namespace tandem {

// Collects metadata and tensors, then is used up. Not thread-safe.
class GgufBuilder {
 public:
  // `path` and `file_bytes` are what the file will say of itself.
  GgufBuilder(const std::string& path, int64_t file_bytes);

  void AddInt(const std::string& key, int64_t value);
  void AddFloat(const std::string& key, double value);
  void AddBool(const std::string& key, bool value);
  void AddString(const std::string& key, std::string value);
  void AddStrings(const std::string& key, std::vector<std::string> values);
  void AddInts(const std::string& key, std::vector<int64_t> values);
  void AddFloats(const std::string& key, std::vector<double> values);

  // `data` must live as long as the file: in memory that Keep was given. INVALID_ARGUMENT
  // when there is a tensor of that name already, or the bytes do not fit the shape.
  absl::Status AddTensor(const std::string& name, DType dtype, std::vector<int64_t> dims,
                         absl::Span<const uint8_t> data);
  // Memory, or whatever else, that the file holds on to.
  void Keep(std::shared_ptr<void> backing);

  std::unique_ptr<GgufFile> Build();

 private:
  struct Backing;

  std::string_view Text(std::string text);
  void Add(const std::string& key, GgufValue value);

  std::shared_ptr<Backing> backing_;
  std::unique_ptr<GgufFile> file_;
};

}  // namespace tandem
