#include "services/gateway/engine/sim_worker.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/base/check.h"
#include "common/base/status_macros.h"

namespace tandem::gateway {

void SimPool::Recreate() {
  ++epoch;
  generations.assign(num_pages, 0);
  pages.assign(num_pages, std::vector<Slot>(slots_per_page));
  for (auto& slot : draft_probs) slot.clear();
}

absl::StatusOr<PoolFacts> SimFence::Facts() {
  if (!is_up) return absl::UnavailableError("no pool");
  return PoolFacts{.epoch = pool_->epoch,
                   .num_pages = pool_->num_pages,
                   .num_draft_probs_slots = static_cast<int32_t>(pool_->draft_probs.size())};
}

void SimFence::SetGeneration(PageId page, uint32_t generation) {
  TANDEM_CHECK(pool_->generations[static_cast<int>(page)] != generation);
  pool_->generations[static_cast<int>(page)] = generation;
}

SimWorker::SimWorker(const Options& options, SimPool* pool, VirtualClock* clock)
    : options_(options),
      pool_(pool),
      clock_(clock),
      model_(options.role == Role::kTarget ? FakeLanguageModel()
                                           : FakeLanguageModel(1, options.agreement)),
      latency_(options.latency_seed) {}

void SimWorker::EndSession(absl::Duration downtime) {
  sequences_.clear();
  ++options_.facts.incarnation;
  up_at_ = clock_->Now() + downtime;
}

void SimWorker::Kill(absl::Duration downtime) {
  EndSession(downtime);
  // The target owns the pool's memory.
  if (options_.role == Role::kTarget) pool_->Recreate();
}

absl::StatusOr<WorkerFacts> SimWorker::CurrentFacts() const {
  if (!is_up()) return absl::UnavailableError(absl::StrCat(RoleName(options_.role), " is down"));
  return options_.facts;
}

absl::Status SimWorker::Violation(std::string what) {
  ++num_violations;
  last_violation = absl::StrCat(RoleName(options_.role), ": ", what);
  return absl::AbortedError(last_violation);
}

void SimWorker::Take(const WorkerStep& step) {
  TANDEM_CHECK(!in_flight_.has_value());
  in_flight_ = step;
  step_epoch_ = pool_->epoch;
}

absl::Status SimWorker::TakeFault(const WorkerStep& step, absl::Duration timeout) {
  bool is_deadly = false;
  for (const SequenceStep& sequence : step.sequences) {
    is_deadly |= deadly_token >= 0 &&
                 std::count(sequence.token_ids.begin(), sequence.token_ids.end(), deadly_token) > 0;
  }
  if (is_deadly) kill_in_step_ = absl::Milliseconds(300);
  if (kill_in_step_) {
    Kill(*std::exchange(kill_in_step_, std::nullopt));
    return absl::UnavailableError("the connection was closed");
  }
  if (hang_in_step_) {
    ++num_hangs;
    clock_->Advance(timeout);
    const absl::Duration downtime = *std::exchange(hang_in_step_, std::nullopt);
    if (wakes_up_) {
      EndSession(downtime);
    } else {
      Kill(downtime);
    }
    return absl::DeadlineExceededError("no answer");
  }
  if (!is_up()) return absl::UnavailableError("not connected");
  if (num_to_refuse_ > 0) {
    --num_to_refuse_;
    ++num_refused_steps;
    return refusal_;
  }
  return absl::OkStatus();
}

absl::Status SimWorker::BeginStep(const WorkerStep& step, absl::Duration timeout) {
  TANDEM_CHECK(in_flight_.has_value());
  ++num_steps;
  if (on_step) on_step();
  RETURN_IF_ERROR(TakeFault(step, timeout));
  if (step_epoch_ != pool_->epoch) {  // the target died after the step was sent
    return absl::AbortedError("the step is of another pool");
  }
  RETURN_IF_ERROR(Copy(step));
  for (const SequenceId sequence : step.release) sequences_.erase(sequence);
  refused_.clear();
  const int32_t most = options_.facts.max_sequences;
  for (const OpenSequence& open : step.open) {
    if (most > 0 && num_sequences() >= most && !sequences_.contains(open.sequence)) {
      refused_.insert(open.sequence);
      continue;
    }
    sequences_[open.sequence] = {
        .sampler = std::make_unique<TokenSampler>(open.sampling, options_.facts.vocab_size),
        .pages = {}};
    sequences_[open.sequence].sampler->Append(open.cached_token_ids);
  }
  return absl::OkStatus();
}

absl::Status SimWorker::Copy(const WorkerStep& step) {
  if (std::exchange(swap_epoch_, pool_->epoch) != pool_->epoch) swap_pages_.clear();
  swap_pages_.resize(options_.facts.num_swap_pages);
  for (const PageCopy& copy : step.copies) {
    if (copy.to_host && !has_host_memory) return absl::ResourceExhaustedError("no host memory");
    if (copy.swap_page < 0 || copy.swap_page >= options_.facts.num_swap_pages) {
      return Violation(absl::StrCat("no place ", copy.swap_page));
    }
    std::vector<SimPool::Slot>& page = pool_->pages[static_cast<int>(copy.page)];
    std::vector<SimPool::Slot>& place = swap_pages_[copy.swap_page];
    if (copy.to_host) {
      place = page;
    } else if (place.empty()) {
      return Violation(absl::StrCat("nothing was copied to place ", copy.swap_page));
    } else {
      page = place;
    }
    ++num_copies;
  }
  return absl::OkStatus();
}

absl::Duration SimWorker::Spend(absl::Duration cost, absl::Duration timeout) {
  const double share = std::uniform_real_distribution<double>(0.0, 1.0)(latency_);
  cost *= 1.0 + options_.jitter * share * share;
  clock_->Advance(std::min(timeout, cost));
  return cost;
}

absl::StatusOr<SimWorker::SimSequence*> SimWorker::BeginEntry(const SequenceStep& step,
                                                              int32_t num_more) {
  if (!entry_failure_.ok()) {
    ++num_failed_entries;
    return std::exchange(entry_failure_, absl::OkStatus());
  }
  const std::string name = absl::StrCat("sequence ", static_cast<int64_t>(step.sequence), ": ");
  const auto found = sequences_.find(step.sequence);
  if (found == sequences_.end()) {
    if (refused_.contains(step.sequence)) return absl::ResourceExhaustedError(name + "table full");
    return Violation(name + "not open");
  }
  SimSequence& sequence = found->second;
  if (step.token_ids.empty()) return Violation(name + "no tokens");
  if (step.start_position > sequence.sampler->length()) {
    return Violation(
        absl::StrCat(name, "start ", step.start_position, " beyond ", sequence.sampler->length()));
  }
  if (!step.pages.empty()) {
    if (step.first_page > static_cast<int32_t>(sequence.pages.size())) {
      return Violation(name + "hole in the page table");
    }
    sequence.pages.resize(step.first_page);
    sequence.pages.insert(sequence.pages.end(), step.pages.begin(), step.pages.end());
  }
  const int32_t end = step.start_position + static_cast<int32_t>(step.token_ids.size()) + num_more;
  const int32_t per_page = options_.facts.positions_per_page;
  const int32_t needed = (end + per_page - 1) / per_page;
  if (needed > static_cast<int32_t>(sequence.pages.size())) {
    return Violation(absl::StrCat(name, needed, " pages needed, ", sequence.pages.size()));
  }
  if (end > options_.facts.context_length) return Violation(name + "beyond the context");
  for (int32_t i = 0; i < needed; ++i) {
    const PageEntry& entry = sequence.pages[i];
    if (pool_->generations[static_cast<int>(entry.page)] != entry.generation) {
      return Violation(absl::StrCat(name, "page ", static_cast<int>(entry.page), " handed on"));
    }
  }
  sequence.sampler->Rewind(step.start_position);
  sequence.sampler->Append(step.token_ids);
  return &sequence;
}

uint64_t SimWorker::RunToken(SimSequence* sequence, int32_t position, int32_t token_id) {
  const int32_t per_page = options_.facts.positions_per_page;
  const auto slot = [&](int32_t at) -> SimPool::Slot& {
    return pool_->pages[static_cast<int>(sequence->pages[at / per_page].page)][at % per_page];
  };
  uint64_t before = 0;
  if (position > 0) {
    TANDEM_CHECK(slot(position - 1).is_written);
    before = slot(position - 1).state;
  }
  slot(position) = {.state = FakeLanguageModel::Extend(before, token_id), .is_written = true};
  return slot(position).state;
}

void SimWorker::Logits(uint64_t state, std::vector<float>* logits) const {
  logits->resize(options_.facts.vocab_size);
  model_.Logits(state, absl::MakeSpan(*logits));
}

}  // namespace tandem::gateway
