// What a random run promises, after each round and in the end.
#include <algorithm>

#include "absl/strings/match.h"
#include "gtest/gtest.h"
#include "services/gateway/engine/random_run.h"

namespace tandem::gateway {
namespace {

bool EndedWith(const SimClient& client, absl::string_view message) {
  return client.error.message() == message;
}

// The target was lost three times in a row with the request in its step.
bool IsBlamed(const SimClient& client) {
  return absl::IsUnavailable(client.error) &&
         absl::StrContains(client.error.message(), "times while it ran");
}

// Whether a fault of the target may end the request; how often that happens is counted.
bool IsVictim(const SimClient& client) {
  return IsBlamed(client) || (absl::IsAborted(client.error) && EndedWith(client, kHandedOn)) ||
         (absl::IsInternal(client.error) &&
          (EndedWith(client, kSpoiled) || EndedWith(client, kRefused)));
}

}  // namespace

void RandomRun::CheckRound() {
  EXPECT_LE(sim_.engine.num_running(), options_.engine.max_running);
  // Preempted sequences wait too.
  EXPECT_LE(sim_.engine.num_waiting(), options_.engine.max_waiting + options_.engine.max_running);
  const EngineGauges& gauges = sim_.observer.gauges;
  EXPECT_EQ(gauges.pages_free + gauges.pages_idle + gauges.pages_target + gauges.pages_draft,
            gauges.pages_total);
  // Who waits has no place in a worker.
  EXPECT_LE(sim_.target.num_sequences(), options_.engine.max_running);
  EXPECT_LE(sim_.draft.num_sequences(), options_.engine.max_running);
  const absl::Status books = sim_.engine.CheckBooks();
  EXPECT_TRUE(books.ok()) << books;
}

void RandomRun::CheckAnswers() {
  for (size_t i = 0; i < requests_.size(); ++i) {
    SCOPED_TRACE(testing::Message() << "request " << i);
    CheckAnswer(i);
    if (testing::Test::HasFailure()) return;
  }
}

void RandomRun::CheckAnswer(size_t index) {
  const SimClient& client = *clients_[index];
  const GenerationRequest& request = requests_[index];
  const bool is_late = absl::IsDeadlineExceeded(client.error);
  if (was_cancelled_[index]) {
    EXPECT_TRUE(absl::IsCancelled(client.error)) << client.error;
  } else if (is_late) {
    EXPECT_GE(sim_.clock.Now(), request.deadline);
  } else if (!IsVictim(client)) {
    ASSERT_TRUE(client.error.ok()) << client.error;
  }
  const bool is_random =
      request.sampling.rule == AcceptanceRule::kRejection && request.sampling.temperature > 0.0f;
  if (is_random) return;  // another sample of the same distribution
  const ExpectedAnswer expected = PlainAnswer(
      request,
      std::min(options_.context_length, options_.num_pages * options_.target_page_positions + 1));
  if (!client.error.ok()) {
    EXPECT_EQ(expected.text.substr(0, client.text.size()), client.text);
    return;
  }
  ASSERT_TRUE(client.finished.has_value());
  ASSERT_EQ(client.text, expected.text);
  EXPECT_EQ(client.finished->reason, expected.reason);
  CheckFinished(client, request, expected);
}

// No more requests end by faults of the target than it has had.
void RandomRun::CheckVictims() {
  int32_t num_failed = 0;
  for (const SimClient* client : clients_) {
    if (EndedWith(*client, kSpoiled)) ++num_failed;
    if (EndedWith(*client, kHandedOn)) num_failed += 2;  // it is replayed once
    if (EndedWith(*client, kRefused)) {
      EXPECT_GE(sim_.target.num_refused_steps, 3);
    }
    if (IsBlamed(*client)) {
      EXPECT_GE(sim_.observer.num_lost[static_cast<int>(Role::kTarget)], 3);
    }
  }
  EXPECT_LE(num_failed, sim_.target.num_failed_entries);
}

void RandomRun::CheckFinished(const SimClient& client, const GenerationRequest& request,
                              const ExpectedAnswer& expected) {
  const FinishedInfo& info = *client.finished;
  EXPECT_EQ(info.output_tokens, static_cast<int32_t>(client.token_ids.size()));
  EXPECT_LE(client.token_ids.size(), expected.token_ids.size());
  EXPECT_TRUE(
      std::equal(client.token_ids.begin(), client.token_ids.end(), expected.token_ids.begin()));
  if (info.reason != FinishReason::kStopString) {
    EXPECT_EQ(client.token_ids.size(), expected.token_ids.size());
  }
  EXPECT_EQ(client.logprobs.size(), request.sampling.logprobs ? client.token_ids.size() : 0);
  EXPECT_EQ(static_cast<int32_t>(info.trace.size()), info.num_steps);
  EXPECT_LE(info.num_accepted, info.num_draft_tokens);
  EXPECT_LT(info.cached_tokens, info.prompt_tokens);
  if (request.speculation.mode == SpeculationMode::kOff) {
    EXPECT_EQ(info.num_draft_tokens, 0);
  }
  if (request.speculation.mode == SpeculationMode::kLookup) {
    EXPECT_EQ(info.num_draft_tokens, info.num_lookup_draft_tokens);
  }
}

}  // namespace tandem::gateway
