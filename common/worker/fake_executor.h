// An executor for tests: no model, but logits that depend on every token before a row
// and on the KV pages being right.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "absl/time/time.h"
#include "common/model/executor.h"
#include "common/speculation/reference_candidates.h"

namespace tandem::worker {

struct FakeExecutorOptions {
  int32_t vocab_size = 50;
  int32_t page_positions = 8;  // 0: what fits, at AttachKv
  ExecutorLimits limits = {.max_step_tokens = 64, .max_logits_rows = 40, .max_positions = 200};
  // How often the likeliest token is another than that of a fake with 0.
  float disagreement = 0.0f;
  // A row that follows this token is not finite; a pass with this token fails.
  int32_t poison_token = -1;
  int32_t failing_token = -1;
  bool knows_greatest = false;  // and candidates, as a device does
  bool can_draft = false;       // as well
  // A pass waits so long and makes no logits: only Greatest() answers, with ids that the tokens
  // before them choose. For measuring what is around a device.
  absl::Duration pass_time = absl::ZeroDuration();
};

// The "KV" of a position is a hash of all tokens up to it, made from the hash in the page
// slot before it: a wrong, stale or overwritten page changes everything after it.
class FakeExecutor final : public Executor {
 public:
  explicit FakeExecutor(FakeExecutorOptions options = {});

  const ModelConfig& config() const override { return config_; }
  const ExecutorLimits& limits() const override { return options_.limits; }
  const KvLayout& kv_layout() const override { return layout_; }
  absl::Status AttachKv(const KvMemory& memory) override;
  absl::Status Forward(absl::Span<const StepSequence> sequences) override;
  absl::Span<float> Logits(int32_t row) override;
  GreatestLogit Greatest(int32_t row) override;
  std::optional<RowCandidates> Candidates(int32_t row) override;
  bool can_draft() const override { return options_.can_draft; }
  absl::Status Draft(absl::Span<const StepSequence> sequences, absl::Span<const DraftLimit> limits,
                     std::vector<std::vector<DraftToken>>* drafts) override;
  int64_t weight_bytes() const override { return 1; }
  int64_t workspace_bytes() const override { return 2; }

  void set_failing_token(int32_t id) { options_.failing_token = id; }
  int32_t num_forwards() const { return num_forwards_; }
  int32_t num_drafts() const { return num_drafts_; }
  int32_t num_rows_read() const { return num_rows_read_; }

 private:
  uint64_t* SlotOf(const StepSequence& sequence, int32_t position);
  absl::Status Check(absl::Span<const StepSequence> sequences) const;
  absl::Span<float> Row(int32_t row);
  bool makes_logits() const { return options_.pass_time == absl::ZeroDuration(); }
  DraftToken Choose(int32_t row, const CandidateQuery& query, const DraftLimit& limit);
  void FillRow(uint64_t hash, int32_t last_token, absl::Span<float> row) const;

  FakeExecutorOptions options_;
  ModelConfig config_;
  KvLayout layout_;
  KvMemory memory_;
  std::vector<float> logits_;
  std::vector<CandidateQuery> queries_;  // of each row
  std::vector<int32_t> greatest_;        // of each row, with a pass_time
  std::optional<ReferenceCandidates> candidates_;
  int32_t num_rows_ = 0;
  int32_t num_forwards_ = 0;
  int32_t num_drafts_ = 0;
  int32_t num_rows_read_ = 0;
};

}  // namespace tandem::worker
