// The memory that a configuration takes, before anything is loaded.
#pragma once

#include <cstdint>
#include <string>

#include "absl/status/statusor.h"
#include "cli/exit_codes.h"
#include "cli/serve_options.h"
#include "common/kernels/kv_layout.h"
#include "common/model/config.h"
#include "common/tokenizer/vocabulary_difference.h"

namespace tandem {

struct StartPlan {
  ResolvedServe resolved;
  int64_t target_bytes = 0;  // weights as packed
  int64_t draft_bytes = 0;
  int64_t workspace_bytes = 0;  // both workers, estimated
  int64_t draft_workspace_bytes = 0;
  int64_t pool_bytes = 0;
  int64_t page_bytes = 0;
  int64_t swap_bytes = 0;       // of host memory that pages may wait in, once they do
  int64_t available_bytes = 0;  // memory that is free now, or the budget
  // On a GPU: its name, and what the contexts of both workers take. Else empty and 0.
  std::string gpu_name;
  int64_t context_bytes = 0;

  int64_t spare_bytes() const {
    return available_bytes - context_bytes - target_bytes - draft_bytes - workspace_bytes -
           pool_bytes;
  }
  // The lines shown before loading.
  std::string ToString() const;
};

// Reads both files' metadata. INVALID_ARGUMENT for a file or a pair that cannot be
// served (vocabularies that differ: names the first token), RESOURCE_EXHAUSTED with the
// nearest setting that fits when memory is short, FAILED_PRECONDITION without a GPU that is
// asked for, OUT_OF_RANGE for options that do not fit the model.
absl::StatusOr<StartPlan> MakeStartPlan(const ServeOptions& options);
// Target positions of a page: 32, or more where the draft's positions are so large that a page
// must be to hold any. INVALID_ARGUMENT where the largest page holds none. `draft` may be null.
absl::StatusOr<int32_t> PlanPagePositions(const ModelConfig& target, KvType target_type,
                                          const ModelConfig* draft, KvType draft_type, bool is_cpu);
// Positions of the draft that a page has room for; 0: it is too small for any.
int64_t DraftPositionsOfPage(int64_t page_bytes, const ModelConfig& draft, KvType type,
                             bool is_cpu);
// What a worker's step needs, in bytes.
int64_t EstimateWorkspace(const ModelConfig& config);
// Of a process on a GPU that nobody can ask: more than those of small cards.
inline constexpr int64_t kUnknownContextBytes = int64_t{256} << 20;

ExitCode ExitCodeOfPlan(const absl::Status& status);

// Tokens of draft and target must mean the same; errors as CompareVocabularies and
// Tokenizer::FromFile.
absl::StatusOr<VocabularyDifference> CheckPair(const std::string& target_path,
                                               const std::string& draft_path);

}  // namespace tandem
