// The two simulated workers. What they have of sequences, and what they do of a step that they
// refuse, is as in common/worker.
#pragma once

#include <cstdint>
#include <set>

#include "services/gateway/engine/sim_worker.h"

namespace tandem::gateway {

class SimTarget final : public SimWorker, public TargetLink {
 public:
  using SimWorker::SimWorker;
  absl::StatusOr<WorkerFacts> Facts() override { return CurrentFacts(); }
  void Send(const WorkerStep& step) override { Take(step); }
  absl::StatusOr<VerifyStepResult> Await(absl::Duration timeout) override;

  std::set<int32_t> drafts_seen;  // ids that came as drafts

 private:
  VerifyResult RunEntry(const SequenceStep& step);
};

class SimDraft final : public SimWorker, public DraftLink {
 public:
  using SimWorker::SimWorker;
  absl::StatusOr<WorkerFacts> Facts() override;
  void Send(const WorkerStep& step) override { Take(step); }
  absl::StatusOr<ProposeStepResult> Await(absl::Duration timeout) override;

  std::set<int32_t> ids_drafted;

 private:
  int64_t attached_epoch_ = 0;  // of the pool
  ProposeResult RunEntry(const SequenceStep& step);
};

}  // namespace tandem::gateway
