// Hundreds of random runs: whatever happens to workers, pages and clients, each answer is
// the target's own, told once, and everything is free in the end.
#include <algorithm>
#include <random>

#include "gtest/gtest.h"
#include "services/gateway/engine/engine_sim.h"

namespace tandem::gateway {
namespace {

class RandomRun {
 public:
  explicit RandomRun(uint32_t seed) : random_(seed), options_(MakeOptions()), sim_(options_) {}

  void Run() {
    const int32_t num_requests = 1 + Below(8);
    num_pending_ = num_requests;
    const bool has_faults = Below(3) > 0;
    SubmitSome();
    for (int32_t round = 0; round < 6000; ++round) {
      if (sim_.engine.num_running() + sim_.engine.num_waiting() == 0 && num_pending_ == 0) break;
      sim_.RunRound();
      if (Below(4) == 0) SubmitSome();
      if (has_faults && round < 2000) CauseTrouble();
      EXPECT_LE(sim_.engine.num_running(), options_.engine.max_running);
      const EngineGauges& gauges = sim_.observer.gauges;
      EXPECT_EQ(gauges.pages_free + gauges.pages_idle + gauges.pages_target + gauges.pages_draft,
                gauges.pages_total);
    }
    for (auto& client : sim_.clients) client->is_congested = false;
    EXPECT_TRUE(sim_.RunUntilIdle());
    CheckAnswers();
    sim_.ExpectAllFree();
  }

  int32_t num_preemptions() { return sim_.observer.num_preemptions(); }
  const SimObserver& observer() const { return sim_.observer; }

 private:
  int32_t Below(int32_t limit) { return static_cast<int32_t>(random_() % limit); }
  double Uniform() { return std::uniform_real_distribution<double>(0.0, 1.0)(random_); }

  SimOptions MakeOptions() {
    SimOptions options;
    options.engine.max_running = 1 + Below(6);
    options.engine.max_draft_length = 1 + Below(16);
    options.engine.prefill_chunk_tokens = 8 + Below(60);
    options.engine.congestion_timeout = absl::Hours(1);
    options.engine.target_wait = absl::Hours(1);
    options.engine.prefix_cache = Below(4) > 0;
    options.target_page_positions = 4 + Below(12);
    // A small pool holds little more than the longest prompt.
    const int32_t positions = Below(2) == 0 ? 110 + Below(60) : 3000;
    options.num_pages = positions / options.target_page_positions;
    options.draft_page_positions = 4 + Below(20);
    options.num_draft_probs_slots = Below(4);
    options.context_length = 120 + Below(100);
    options.draft_context_length = Below(5) == 0 ? 60 : options.context_length;
    options.max_step_tokens = 24 + Below(100);
    options.max_logits_rows = 17 + Below(40);
    options.agreement = Below(3) == 0 ? 0.0 : Uniform();
    options.has_draft = Below(6) > 0;
    options.draft_step_cost = absl::Milliseconds(1 + Below(9));
    return options;
  }

  GenerationRequest MakeRequest() {
    GenerationRequest request;
    const int32_t num_prompt = 1 + Below(Below(3) == 0 ? 100 : 30);
    const int32_t alphabet = Below(2) == 0 ? 3 : 250;
    // Conversations go on from where others are.
    if (!requests_.empty() && Below(2) == 0) {
      const size_t index = Below(static_cast<int32_t>(requests_.size()));
      request.prompt = requests_[index].prompt;
      const auto& answer = sim_.clients[index]->token_ids;
      if (Below(2) == 0) request.prompt.insert(request.prompt.end(), answer.begin(), answer.end());
      request.prompt.resize(std::min<size_t>(request.prompt.size(), 1 + Below(100)));
    }
    for (int32_t i = 0; i < num_prompt && static_cast<int32_t>(request.prompt.size()) < 100; ++i) {
      request.prompt.push_back(Below(alphabet));
    }
    SamplingParams& sampling = request.sampling;
    sampling.seed = random_();
    if (Below(3) > 0) sampling.temperature = static_cast<float>(0.2 + Uniform());
    if (Below(3) == 0) sampling.top_k = 1 + Below(50);
    if (Below(3) == 0) sampling.top_p = static_cast<float>(0.5 + Uniform() / 2);
    if (Below(3) == 0) sampling.repetition_penalty = 1.3f;
    if (Below(3) == 0) sampling.used_vocab_size = 5 + Below(20);  // repeats itself soon
    if (Below(4) == 0) sampling.logprobs = true;
    if (Below(8) == 0) sampling.rule = AcceptanceRule::kRejection;
    StoppingParams& stopping = request.stopping;
    if (Below(8) > 0) stopping.max_tokens = 1 + Below(60);
    stopping.ignore_eos = Below(2) == 0;
    if (Below(3) == 0) {
      for (int32_t i = 1 + Below(3); i > 0; --i) {
        std::string stop;
        for (int32_t j = 1 + Below(2); j > 0; --j) stop += static_cast<char>(Below(20));
        stopping.stop.push_back(stop);
      }
    }
    if (Below(4) == 0) stopping.stop_token_ids = {Below(20)};
    stopping.include_stop = Below(4) == 0;
    request.speculation.mode = static_cast<SpeculationMode>(Below(4));
    request.speculation.draft_length = Below(2) == 0 ? 0 : 1 + Below(16);
    request.speculation.trace = true;
    return request;
  }

  void SubmitSome() {
    for (int32_t i = Below(3); i >= 0 && num_pending_ > 0; --i) {
      SequenceId id{};
      requests_.push_back(MakeRequest());
      SimClient* client = sim_.Submit(requests_.back(), &id);
      --num_pending_;
      ids_.push_back(id);
      was_cancelled_.push_back(false);
      EXPECT_TRUE(client->error.ok()) << client->error;
    }
  }

  void CauseTrouble() {
    const absl::Duration downtime = absl::Milliseconds(Below(400));
    switch (Below(60)) {
      case 0:
        sim_.draft.Kill(downtime);
        break;
      case 1:
        sim_.draft.KillInNextStep(downtime);
        break;
      case 2:
        sim_.target.Kill(downtime);
        break;
      case 3:
        sim_.target.KillInNextStep(downtime);
        break;
      case 4:
        sim_.draft.FailNextEntry(absl::AbortedError("stale page"));
        break;
      case 5:
        sim_.draft.RefuseNextStep(absl::InternalError("refused"));
        break;
      case 6:
        if (!requests_.empty()) Cancel(Below(static_cast<int32_t>(requests_.size())));
        break;
      case 7:
      case 8:
        for (auto& client : sim_.clients) client->is_congested = Below(3) == 0;
        break;
      case 9:
        sim_.target.Kill(downtime);
        sim_.draft.Kill(absl::Milliseconds(Below(400)));
        break;
      default:
        break;
    }
  }

  void Cancel(int32_t index) {
    was_cancelled_[index] = was_cancelled_[index] || !sim_.clients[index]->is_over();
    sim_.engine.Cancel(ids_[index], absl::CancelledError("client went away"));
    EXPECT_TRUE(sim_.clients[index]->is_over());
  }

  void CheckAnswers() {
    for (size_t i = 0; i < requests_.size(); ++i) {
      const SimClient& client = *sim_.clients[i];
      const GenerationRequest& request = requests_[i];
      const bool is_random = request.sampling.rule == AcceptanceRule::kRejection &&
                             request.sampling.temperature > 0.0f;
      if (was_cancelled_[i]) {
        EXPECT_TRUE(absl::IsCancelled(client.error));
      } else if (IsVictim(client)) {
        continue;
      } else {
        ASSERT_TRUE(client.error.ok()) << client.error;
      }
      if (is_random) continue;  // another sample of the same distribution
      const ExpectedAnswer expected =
          PlainAnswer(request, std::min(options_.context_length,
                                        options_.num_pages * options_.target_page_positions + 1));
      if (was_cancelled_[i]) {
        EXPECT_EQ(expected.text.substr(0, client.text.size()), client.text);
        continue;
      }
      ASSERT_TRUE(client.finished.has_value());
      ASSERT_EQ(client.text, expected.text) << "request " << i;
      EXPECT_EQ(client.finished->reason, expected.reason);
      CheckFinished(client, request, expected);
    }
  }

  // Three deaths of the target in a row are blamed on the request: allowed, if rare.
  static bool IsVictim(const SimClient& client) {
    return absl::IsUnavailable(client.error) &&
           client.error.message().find("times while it ran") != absl::string_view::npos;
  }

  void CheckFinished(const SimClient& client, const GenerationRequest& request,
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
    if (request.speculation.mode == SpeculationMode::kOff) {
      EXPECT_EQ(info.num_draft_tokens, 0);
    }
    if (request.speculation.mode == SpeculationMode::kLookup) {
      EXPECT_EQ(info.num_draft_tokens, info.num_lookup_draft_tokens);
    }
  }

  std::mt19937 random_;
  SimOptions options_;
  EngineSim sim_;
  int32_t num_pending_ = 0;
  std::vector<GenerationRequest> requests_;
  std::vector<SequenceId> ids_;
  std::vector<bool> was_cancelled_;
};

// Sanitizers make a run twenty times slower.
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
constexpr uint32_t kNumRuns = 100;
#else
constexpr uint32_t kNumRuns = 600;
#endif

TEST(EngineRandomTest, AnswersAreTheTargetsOwnWhateverHappens) {
  int32_t num_preemptions = 0;
  int32_t num_drafted = 0;
  int32_t num_lookups = 0;
  int32_t num_target_losses = 0;
  int32_t num_draft_losses = 0;
  int64_t num_cached[kNumRoles] = {};
  for (uint32_t seed = 1; seed <= kNumRuns; ++seed) {
    SCOPED_TRACE(seed);
    RandomRun run(seed);
    run.Run();
    if (testing::Test::HasFailure()) return;
    num_preemptions += run.num_preemptions();
    for (int i = 0; i < kNumRoles; ++i) num_cached[i] += run.observer().num_cached_tokens[i];
    num_drafted += run.observer().sequence_steps[static_cast<int>(DraftSource::kDraft)];
    num_lookups += run.observer().sequence_steps[static_cast<int>(DraftSource::kLookup)];
    num_target_losses += run.observer().num_lost[static_cast<int>(Role::kTarget)];
    num_draft_losses += run.observer().num_lost[static_cast<int>(Role::kDraft)];
  }
  // The runs must have been eventful.
  EXPECT_GT(num_preemptions, static_cast<int32_t>(kNumRuns / 6));
  for (const int64_t tokens : num_cached) EXPECT_GT(tokens, static_cast<int64_t>(5 * kNumRuns));
  EXPECT_GT(num_drafted, static_cast<int32_t>(kNumRuns));
  EXPECT_GT(num_lookups, static_cast<int32_t>(kNumRuns));
  EXPECT_GT(num_target_losses, static_cast<int32_t>(kNumRuns / 6));
  EXPECT_GT(num_draft_losses, static_cast<int32_t>(kNumRuns / 6));
}

}  // namespace
}  // namespace tandem::gateway
