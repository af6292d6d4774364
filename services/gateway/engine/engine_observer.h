// What happens in the engine, told to whoever counts it (metrics, simulator, tests).
#pragma once

#include <cstdint>
#include <string_view>

#include "absl/time/time.h"
#include "common/base/ids.h"
#include "common/speculation/controller.h"
#include "services/gateway/engine/request.h"

namespace tandem::gateway {

using ::tandem::DraftSource;

// One sequence's part of one finished step.
struct SequenceStepInfo {
  DraftSource source = DraftSource::kNone;
  int32_t num_draft_tokens = 0;
  int32_t num_accepted = 0;
  int32_t num_committed = 0;
  std::string_view bypass_reason;  // why nothing was drafted; empty otherwise
};

struct StepInfo {
  Role role = Role::kTarget;
  int32_t num_sequences = 0;
  int32_t num_rows = 0;
  int32_t num_prefill_tokens = 0;
  absl::Duration round_trip;  // by the engine's clock
  absl::Duration compute;     // forward (and draft) as the worker measured it
  absl::Duration sample;
};

// What is done when pages run short, in this order.
enum class PressureRung : int8_t {
  kEvictCached,     // idle pages of the prefix cache, the least recently used first
  kShortenDrafts,   // a draft that has no page for all its tokens
  kDropDraftPages,  // of the youngest sequence: it goes on with lookup or plain
  kPreempt,         // the youngest of the lowest priority is computed again later
  kRefuse,          // RESOURCE_EXHAUSTED
};
inline constexpr int kNumPressureRungs = 5;
const char* PressureRungName(PressureRung rung);

// Gauges, after each round.
struct EngineGauges {
  int32_t num_running = 0, num_waiting = 0;
  // Of sequences, by role; of the cached ones the pinned are in use, the idle are not.
  int32_t pages_total = 0, pages_free = 0, pages_target = 0, pages_draft = 0;
  int32_t pages_idle = 0, pages_pinned = 0;
  int32_t swap_pages = 0, swap_pages_free = 0;  // places in the target's host memory
  bool target_up = false, draft_up = false;
  double mean_draft_length = 0.0;
};

// All calls on the engine's thread; must not block.
class EngineObserver {
 public:
  virtual ~EngineObserver() = default;
  virtual void OnStep(const StepInfo& info) = 0;
  virtual void OnSequenceStep(const SequenceStepInfo& info) = 0;
  virtual void OnFirstToken(absl::Duration queue, absl::Duration time_to_first_token) = 0;
  virtual void OnInterTokenLatency(absl::Duration since_last_commit, int32_t num_tokens) = 0;
  virtual void OnFinished(const FinishedInfo& info) = 0;
  virtual void OnFailed(const absl::Status& status) = 0;
  // A sequence of `num_tokens` began with `num_cached` of them in the prefix cache.
  virtual void OnPrefixLookup(Role role, int32_t num_tokens, int32_t num_cached) = 0;
  // A rung of the ladder was used, `count` times (pages, tokens or sequences).
  virtual void OnPressure(PressureRung rung, int32_t count) = 0;
  // Pages of preempted sequences were moved to the target's host memory, or back.
  virtual void OnSwapped(int32_t num_pages, bool to_host) = 0;
  virtual void OnWorkerLost(Role role, const absl::Status& status) = 0;
  virtual void OnGauges(const EngineGauges& gauges) = 0;
};

}  // namespace tandem::gateway
