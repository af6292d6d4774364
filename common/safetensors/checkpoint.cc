#include "common/safetensors/checkpoint.h"

#include <sys/mman.h>
#include <sys/stat.h>

#include <cstring>
#include <filesystem>
#include <map>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "common/base/status_macros.h"
#include "common/gguf/gguf_builder.h"
#include "common/safetensors/checkpoint_config.h"
#include "common/safetensors/json_reader.h"
#include "common/safetensors/nf4_tensor.h"
#include "common/safetensors/safetensors_file.h"

namespace tandem {
namespace {

using internal::CheckpointShape;
using nlohmann::json;

constexpr size_t kMaxShards = 1024;

// All files of a folder, and which of them has a tensor.
class Shards {
 public:
  absl::Status Open(const std::string& folder) {
    std::map<std::string, bool> names;
    const absl::StatusOr<json> index =
        internal::ReadJsonFile(folder + "/model.safetensors.index.json");
    if (index.ok()) {
      const json weight_map = internal::JsonObject(*index, "weight_map");
      for (const auto& [tensor, file] : weight_map.items()) {
        const std::string name = file.is_string() ? file.get<std::string>() : "";
        // A name, and no way out of the folder.
        if (name.empty() || absl::StrContains(name, '/') || absl::StrContains(name, '\0')) {
          return absl::InvalidArgumentError(
              absl::StrCat(folder, ": the index places '", tensor, "' in no file"));
        }
        names[name] = true;
      }
    } else if (absl::IsNotFound(index.status())) {
      names["model.safetensors"] = true;
    } else {
      return index.status();
    }
    if (names.empty() || names.size() > kMaxShards) {
      return absl::InvalidArgumentError(
          absl::StrCat(folder, ": the index lists ", names.size(), " files"));
    }
    for (const auto& [name, unused] : names) {
      ASSIGN_OR_RETURN(auto file, SafetensorsFile::Open(absl::StrCat(folder, "/", name)));
      num_bytes_ += file->file_bytes();
      files_.push_back(std::move(file));
    }
    return absl::OkStatus();
  }

  const SafetensorsTensor* Find(const std::string& name) const {
    for (const auto& file : files_) {
      const auto found = file->tensors().find(name);
      if (found != file->tensors().end()) return &found->second;
    }
    return nullptr;
  }
  int64_t num_bytes() const { return num_bytes_; }
  const std::vector<std::shared_ptr<SafetensorsFile>>& files() const { return files_; }

 private:
  std::vector<std::shared_ptr<SafetensorsFile>> files_;
  int64_t num_bytes_ = 0;
};

// Memory for copies. Shared, although with nobody: who loads weights gives pages back to the
// system as it goes, and pages of private memory would be zero for the next who reads them.
absl::StatusOr<std::shared_ptr<uint8_t>> AllocateBytes(size_t size) {
  void* start = mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  if (start == MAP_FAILED) {
    return absl::ResourceExhaustedError(absl::StrCat("no memory for ", size, " bytes of weights"));
  }
  return std::shared_ptr<uint8_t>(static_cast<uint8_t*>(start),
                                  [size](uint8_t* bytes) { munmap(bytes, size); });
}

// Row `row` in GGUF's order of a matrix whose heads have `head_rows` rows: pair i of a head is
// rows i and i + head_rows / 2 in the checkpoint, 2 i and 2 i + 1 in GGUF.
int64_t RopeSource(int64_t row, int64_t head_rows) {
  const int64_t in_head = row % head_rows;
  return row - in_head + in_head / 2 + in_head % 2 * (head_rows / 2);
}

class CheckpointReader {
 public:
  CheckpointReader(const Shards& shards, const CheckpointShape& shape, GgufBuilder& builder)
      : shards_(shards), shape_(shape), builder_(builder) {}

  absl::Status AddAll() {
    RETURN_IF_ERROR(Add("model.embed_tokens.weight", "token_embd.weight"));
    const std::pair<const char*, const char*> plain[] = {
        {"input_layernorm", "attn_norm"},    {"self_attn.v_proj", "attn_v"},
        {"self_attn.o_proj", "attn_output"}, {"post_attention_layernorm", "ffn_norm"},
        {"mlp.gate_proj", "ffn_gate"},       {"mlp.up_proj", "ffn_up"},
        {"mlp.down_proj", "ffn_down"}};
    for (int64_t i = 0; i < shape_.num_layers; ++i) {
      const std::string from = absl::StrCat("model.layers.", i, ".");
      const std::string to = absl::StrCat("blk.", i, ".");
      for (const auto& [source, name] : plain) {
        RETURN_IF_ERROR(
            Add(absl::StrCat(from, source, ".weight"), absl::StrCat(to, name, ".weight")));
      }
      RETURN_IF_ERROR(
          Add(from + "self_attn.q_proj.weight", to + "attn_q.weight", shape_.num_heads));
      RETURN_IF_ERROR(
          Add(from + "self_attn.k_proj.weight", to + "attn_k.weight", shape_.num_kv_heads));
    }
    RETURN_IF_ERROR(Add("model.norm.weight", "output_norm.weight"));
    if (shape_.tied_head) return absl::OkStatus();
    return Add("lm_head.weight", "output.weight");
  }

 private:
  // `rope_heads`: heads whose rows are put into GGUF's order; 0: the rows stay as they are.
  absl::Status Add(const std::string& source, const std::string& name, int64_t rope_heads = 0) {
    const SafetensorsTensor* tensor = shards_.Find(source);
    if (tensor == nullptr) {
      return absl::InvalidArgumentError(absl::StrCat("tensor '", source, "' is missing"));
    }
    if (tensor->dtype == "U8") return AddNf4(source, name, rope_heads);
    DType dtype = DType::kF32;
    if (tensor->dtype == "BF16") {
      dtype = DType::kBF16;
    } else if (tensor->dtype == "F16") {
      dtype = DType::kF16;
    } else if (tensor->dtype != "F32") {
      return absl::InvalidArgumentError(absl::StrCat("tensor '", source, "' is ", tensor->dtype,
                                                     "; Tandem reads BF16, F16, F32 and NF4"));
    }
    if (tensor->shape.empty() || tensor->shape.size() > 2) {
      return absl::InvalidArgumentError(absl::StrCat("tensor '", source, "' is no matrix"));
    }
    const std::vector<int64_t> dims(tensor->shape.rbegin(), tensor->shape.rend());
    const int64_t num_rows = dims.size() == 2 ? dims[1] : 1;
    if (rope_heads == 0) return builder_.AddTensor(name, dtype, dims, tensor->data);
    ASSIGN_OR_RETURN(const auto data, Copy(source, tensor->data, num_rows, rope_heads));
    return builder_.AddTensor(name, dtype, dims, data);
  }

  absl::Status AddNf4(const std::string& source, const std::string& name, int64_t rope_heads) {
    ASSIGN_OR_RETURN(Nf4Matrix matrix, ReadNf4(source, [this](const std::string& wanted) {
                       return shards_.Find(wanted);
                     }));
    ASSIGN_OR_RETURN(const auto data, Copy(source, matrix.blocks, matrix.num_rows, rope_heads));
    return builder_.AddTensor(name, DType::kNF4, {matrix.num_cols, matrix.num_rows}, data);
  }

  // A copy of `data`, which the file keeps, with the rows in GGUF's order if there are heads.
  absl::StatusOr<absl::Span<const uint8_t>> Copy(const std::string& source,
                                                 absl::Span<const uint8_t> data, int64_t num_rows,
                                                 int64_t num_heads) {
    if (num_heads > 0 && num_rows % (2 * num_heads) != 0) {
      return absl::InvalidArgumentError(absl::StrCat("tensor '", source, "' has ", num_rows,
                                                     " rows, which do not make ", num_heads,
                                                     " heads"));
    }
    const size_t row_bytes = data.size() / static_cast<size_t>(num_rows);
    ASSIGN_OR_RETURN(const std::shared_ptr<uint8_t> copy, AllocateBytes(data.size()));
    for (int64_t row = 0; row < num_rows; ++row) {
      const int64_t from = num_heads > 0 ? RopeSource(row, num_rows / num_heads) : row;
      std::memcpy(copy.get() + row * row_bytes, data.data() + from * row_bytes, row_bytes);
    }
    builder_.Keep(copy);
    return absl::Span<const uint8_t>(copy.get(), data.size());
  }

  const Shards& shards_;
  const CheckpointShape& shape_;
  GgufBuilder& builder_;
};

absl::StatusOr<std::unique_ptr<GgufFile>> OpenFolder(const std::string& folder) {
  ASSIGN_OR_RETURN(const json config, internal::ReadJsonFile(folder + "/config.json"));
  Shards shards;
  RETURN_IF_ERROR(shards.Open(folder));
  GgufBuilder builder(folder, shards.num_bytes());
  const std::string name =
      std::filesystem::path(folder + "/").lexically_normal().parent_path().filename().string();
  ASSIGN_OR_RETURN(const CheckpointShape shape, internal::AddConfig(config, name, builder));
  RETURN_IF_ERROR(internal::AddTokenizer(folder, config, builder));
  for (const auto& file : shards.files()) builder.Keep(file);
  RETURN_IF_ERROR(CheckpointReader(shards, shape, builder).AddAll());
  return builder.Build();
}

}  // namespace

absl::StatusOr<std::unique_ptr<GgufFile>> OpenModel(const std::string& path) {
  struct stat info;
  if (stat(path.c_str(), &info) != 0 || !S_ISDIR(info.st_mode)) return GgufFile::Open(path);
  absl::StatusOr<std::unique_ptr<GgufFile>> file = OpenFolder(path);
  if (file.ok()) return file;
  // Every message says which model it is about.
  if (absl::StrContains(file.status().message(), path)) return file;
  return absl::Status(file.status().code(), absl::StrCat(path, ": ", file.status().message()));
}

}  // namespace tandem
