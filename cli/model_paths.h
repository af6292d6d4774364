// Which models a command uses when it is not told.
#pragma once

#include <string>

#include "absl/status/statusor.h"

namespace tandem {

struct ModelPair {
  std::string target;
  std::string draft;  // empty: no draft model, lookup only
};

// `target` and `draft` where given, else the demonstration pair that scripts/setup puts
// into ../models beside the folder of this program ($TANDEM_MODELS names another
// folder). NOT_FOUND says how to get one.
absl::StatusOr<ModelPair> FindModels(const std::string& target, const std::string& draft);

// The folder this program is in; the other programs are beside it.
std::string ProgramFolder();

}  // namespace tandem
