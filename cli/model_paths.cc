#include "cli/model_paths.h"

#include <cstdlib>
#include <filesystem>
#include <system_error>

#include "absl/strings/str_cat.h"

namespace tandem {
namespace {

constexpr char kDemoTarget[] = "smollm2-135m-instruct.q4_1.gguf";
constexpr char kDemoDraft[] = "smollm2-135m-instruct.tiny.q4_1.gguf";

}  // namespace

std::string ProgramFolder() {
  std::error_code error;
  const std::filesystem::path self = std::filesystem::read_symlink("/proc/self/exe", error);
  return error ? "." : self.parent_path().string();
}

absl::StatusOr<ModelPair> FindModels(const std::string& target, const std::string& draft) {
  if (!target.empty()) return ModelPair{.target = target, .draft = draft};
  const char* folder = std::getenv("TANDEM_MODELS");
  const std::filesystem::path models =
      folder != nullptr ? std::filesystem::path(folder)
                        : std::filesystem::path(ProgramFolder()) / ".." / "models";
  std::error_code error;
  if (!std::filesystem::exists(models / kDemoTarget, error)) {
    return absl::NotFoundError(absl::StrCat(
        "no model named and no ", kDemoTarget, " in ", models.lexically_normal().string(),
        ": give --target FILE, or run scripts/setup to get the small one"));
  }
  ModelPair pair;
  pair.target = (models / kDemoTarget).lexically_normal().string();
  if (!draft.empty()) {
    pair.draft = draft;
  } else if (std::filesystem::exists(models / kDemoDraft, error)) {
    pair.draft = (models / kDemoDraft).lexically_normal().string();
  }
  return pair;
}

}  // namespace tandem
