// The links against worker programs (without a model) that start, die, hang and come back.
#include "services/gateway/links/worker_links.h"

#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <filesystem>
#include <functional>
#include <string>
#include <vector>

#include "absl/time/clock.h"
#include "common/gguf/gguf_writer.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace tandem::gateway {
namespace {

constexpr absl::Duration kLong = absl::Seconds(20);
constexpr int32_t kVocabSize = 40;

class Program {
 public:
  explicit Program(std::vector<std::string> argv) {
    std::vector<char*> arguments;
    for (std::string& argument : argv) arguments.push_back(argument.data());
    arguments.push_back(nullptr);
    pid_ = fork();
    if (pid_ != 0) return;
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    dup2(open("/dev/null", O_WRONLY | O_CLOEXEC), STDOUT_FILENO);
    execv(arguments[0], arguments.data());
    _exit(127);
  }
  ~Program() {
    Signal(SIGKILL);
    waitpid(pid_, nullptr, 0);
  }
  Program(const Program&) = delete;
  void Signal(int number) { kill(pid_, number); }
  // Returns when it has stopped.
  void Stop() {
    Signal(SIGSTOP);
    waitpid(pid_, nullptr, WUNTRACED);
  }

 private:
  pid_t pid_ = -1;
};

class CountingObserver final : public LinkObserver {
 public:
  void OnConnected(Role role, const WorkerDescription&, const ConnectionInfo& info) override {
    const std::lock_guard lock(mutex_);
    last_[static_cast<int>(role)] = info;
  }
  void OnLost(Role, const absl::Status&) override {}
  void OnHung(Role role) override { ++num_hung[static_cast<int>(role)]; }
  void OnAskedAgain(Role, const WorkerDescription&) override {}
  void OnRefused(Role, const absl::Status&) override { ++num_refused; }
  void OnRingFailed(Role, const absl::Status&) override { ++num_ring_failures; }

  ConnectionInfo last(Role role) const {
    const std::lock_guard lock(mutex_);
    return last_[static_cast<int>(role)];
  }
  std::atomic<int> num_ring_failures = 0;
  std::atomic<int> num_refused = 0;
  std::atomic<int> num_hung[kNumRoles] = {};

 private:
  mutable std::mutex mutex_;
  ConnectionInfo last_[kNumRoles];
};

class WorkerLinksTest : public testing::TestWithParam<bool> {
 protected:
  WorkerLinksTest() {
    char name[] = "/tmp/tandem_links_test_XXXXXX";
    folder_ = mkdtemp(name);
    WriteModel("one");
  }
  ~WorkerLinksTest() override {
    draft_link_.reset();
    target_link_.reset();
    draft_.reset();
    target_.reset();
    std::filesystem::remove_all(folder_);
  }

  std::string Address(Role role) const { return "unix:" + folder_ + "/" + RoleName(role); }
  void WriteModel(const std::string& name) const {
    std::vector<std::string> tokens;
    for (int32_t id = 0; id < kVocabSize; ++id) tokens.push_back(std::to_string(id));
    GgufWriter writer;
    writer.AddString("general.name", name);
    writer.AddStrings("tokenizer.ggml.tokens", tokens);
    EXPECT_TRUE(writer.WriteFile(folder_ + "/m.gguf").ok());
  }
  void StartTarget() {
    target_.reset();
    target_ = std::make_unique<Program>(std::vector<std::string>{
        TANDEM_FAKE_TARGET, "--model", folder_ + "/m.gguf", "--listen", Address(Role::kTarget),
        "--kv-pages", "16", "--page-positions", "8", "--log-level", "error"});
  }
  void StartDraft() {
    draft_.reset();
    draft_ = std::make_unique<Program>(
        std::vector<std::string>{TANDEM_FAKE_DRAFT, "--model", folder_ + "/m.gguf", "--listen",
                                 Address(Role::kDraft), "--log-level", "error"});
  }
  void StartLinks() {
    LinkOptions options{.address = Address(Role::kTarget),
                        .use_ring = GetParam(),
                        .call_timeout = absl::Seconds(1),
                        .first_backoff = absl::Milliseconds(5),
                        .last_backoff = absl::Milliseconds(20),
                        .watch_interval = absl::Milliseconds(5),
                        .hang_grace = hang_grace_};
    target_link_ = std::make_unique<RemoteTargetLink>(options, &fence_, &observer_);
    options.address = Address(Role::kDraft);
    draft_link_ = std::make_unique<RemoteDraftLink>(options, &fence_, &observer_);
  }

  absl::Duration hang_grace_ = LinkOptions().hang_grace;

  // What the engine does between rounds, until `is_fine`.
  bool RunEngineUntil(const std::function<bool()>& is_fine) {
    const absl::Time deadline = absl::Now() + kLong;
    while (absl::Now() < deadline) {
      target_facts_ = target_link_->Facts();
      pool_facts_ = fence_.Facts();
      draft_facts_ = draft_link_->Facts();
      if (is_fine()) return true;
      absl::SleepFor(absl::Milliseconds(1));  // the workers are other processes
    }
    ADD_FAILURE() << target_facts_.status() << pool_facts_.status() << draft_facts_.status();
    return false;
  }
  bool AllUp() const { return target_facts_.ok() && pool_facts_.ok() && draft_facts_.ok(); }
  bool WaitForAll() {
    return RunEngineUntil([this] { return AllUp(); });
  }

  // One sequence, its first three tokens; the token after them.
  absl::StatusOr<int32_t> Verify(SequenceId id) {
    fence_.SetGeneration(PageId(0), ++generation_);
    WorkerStep step;
    step.open.push_back({.sequence = id});
    step.sequences.push_back({.sequence = id,
                              .token_ids = {1, 2, 3},
                              .pages = {{PageId(0), generation_}},
                              .sample = true});
    step.release.push_back(id);
    target_link_->Send(step);
    const absl::StatusOr<VerifyStepResult> result = target_link_->Await(kLong);
    if (!result.ok()) return result.status();
    EXPECT_EQ(result->results.size(), 1u);
    if (!result->results[0].status.ok()) return result->results[0].status;
    return result->results[0].next_token_id;
  }
  // The number of tokens drafted.
  absl::StatusOr<size_t> Propose(SequenceId id) {
    fence_.SetGeneration(PageId(1), ++generation_);
    WorkerStep step;
    step.open.push_back({.sequence = id});
    step.sequences.push_back({.sequence = id,
                              .token_ids = {1, 2, 3},
                              .pages = {{PageId(1), generation_}},
                              .num_draft_tokens = 4});
    step.release.push_back(id);
    draft_link_->Send(step);
    const absl::StatusOr<ProposeStepResult> result = draft_link_->Await(kLong);
    if (!result.ok()) return result.status();
    if (!result->results[0].status.ok()) return result->results[0].status;
    return result->results[0].draft_token_ids.size();
  }

  std::string folder_;
  PoolFence fence_;
  CountingObserver observer_;
  std::unique_ptr<Program> target_, draft_;
  std::unique_ptr<RemoteTargetLink> target_link_;
  std::unique_ptr<RemoteDraftLink> draft_link_;
  absl::StatusOr<WorkerFacts> target_facts_, draft_facts_;
  absl::StatusOr<PoolFacts> pool_facts_;
  uint32_t generation_ = 0;
};

TEST_P(WorkerLinksTest, ConnectAndRunSteps) {
  StartLinks();  // the workers come later
  EXPECT_TRUE(absl::IsUnavailable(target_link_->Facts().status()));
  StartDraft();
  StartTarget();
  ASSERT_TRUE(WaitForAll());
  EXPECT_EQ(target_facts_->vocab_size, kVocabSize);
  EXPECT_EQ(target_facts_->positions_per_page, 8);
  EXPECT_GE(draft_facts_->positions_per_page, 1);
  EXPECT_EQ(target_facts_->max_sequences, 256);
  EXPECT_EQ(draft_facts_->max_sequences, 256);
  EXPECT_EQ(pool_facts_->num_pages, 16);
  EXPECT_EQ(observer_.last(Role::kTarget).is_ring, GetParam());
  EXPECT_EQ(observer_.last(Role::kDraft).is_ring, GetParam());
  EXPECT_EQ(observer_.num_ring_failures, 0);
  const absl::StatusOr<int32_t> token = Verify(SequenceId(1));
  ASSERT_TRUE(token.ok()) << token.status();
  const absl::StatusOr<size_t> num_drafts = Propose(SequenceId(1));
  ASSERT_TRUE(num_drafts.ok()) << num_drafts.status();
  EXPECT_EQ(*num_drafts, 4u);
  EXPECT_EQ(Verify(SequenceId(2)).value(), *token);
}

// A session that the engine held on to kept the worker's only place: the draft was never
// attached to the pool of a restarted target.
TEST_P(WorkerLinksTest, BothAreUsedAgainAfterTheTargetWasKilled) {
  StartTarget();
  StartDraft();
  StartLinks();
  ASSERT_TRUE(WaitForAll());
  const int32_t token = Verify(SequenceId(1)).value();
  ASSERT_TRUE(Propose(SequenceId(1)).ok());
  for (int round = 0; round < 2; ++round) {
    const int64_t old_epoch = pool_facts_->epoch;
    const int64_t old_target = target_facts_->incarnation;
    target_->Signal(SIGKILL);
    ASSERT_TRUE(RunEngineUntil([this] { return !target_facts_.ok(); }));
    StartTarget();
    ASSERT_TRUE(RunEngineUntil([&] { return AllUp() && pool_facts_->epoch != old_epoch; }));
    EXPECT_NE(target_facts_->incarnation, old_target);
    EXPECT_TRUE(observer_.last(Role::kTarget).is_restart);
    EXPECT_EQ(Verify(SequenceId(1)).value(), token);
    EXPECT_EQ(Propose(SequenceId(1)).value(), 4u);
  }
}

// Sequences would have gone on with other weights: silently wrong text.
TEST_P(WorkerLinksTest, AnotherModelInTheTargetsPlaceIsRefusedUntilTheFirstIsBack) {
  StartTarget();
  StartDraft();
  StartLinks();
  ASSERT_TRUE(WaitForAll());
  const int32_t token = Verify(SequenceId(1)).value();
  WriteModel("two");
  StartTarget();
  ASSERT_TRUE(
      RunEngineUntil([this] { return absl::IsFailedPrecondition(target_facts_.status()); }));
  EXPECT_THAT(std::string(target_facts_.status().message()), testing::HasSubstr("another model"));
  EXPECT_FALSE(target_link_->IsConnected());
  EXPECT_EQ(observer_.num_refused, 1);

  WriteModel("one");
  StartTarget();
  ASSERT_TRUE(WaitForAll());
  EXPECT_EQ(Verify(SequenceId(1)).value(), token);
  EXPECT_EQ(Propose(SequenceId(1)).value(), 4u);
}

TEST_P(WorkerLinksTest, ADraftThatDiesInTheMiddleOfAStepComesBack) {
  StartTarget();
  StartDraft();
  StartLinks();
  ASSERT_TRUE(WaitForAll());
  const int64_t old_draft = draft_facts_->incarnation;
  draft_->Stop();
  WorkerStep step;
  step.release.push_back(SequenceId(1));
  draft_link_->Send(step);
  draft_->Signal(SIGKILL);
  EXPECT_TRUE(absl::IsUnavailable(draft_link_->Await(kLong).status()));
  EXPECT_FALSE(draft_link_->Facts().ok());
  EXPECT_TRUE(target_link_->Facts().ok());
  StartDraft();
  ASSERT_TRUE(WaitForAll());
  EXPECT_NE(draft_facts_->incarnation, old_draft);
  EXPECT_EQ(Propose(SequenceId(1)).value(), 4u);
}

TEST_P(WorkerLinksTest, AWorkerThatHangsIsLeftAndTakenBack) {
  StartTarget();
  StartDraft();
  StartLinks();
  ASSERT_TRUE(WaitForAll());
  const int64_t before = target_facts_->incarnation;
  target_->Stop();
  target_link_->Send({});
  EXPECT_TRUE(absl::IsDeadlineExceeded(target_link_->Await(absl::Milliseconds(20)).status()));
  EXPECT_TRUE(absl::IsUnavailable(target_link_->Facts().status()));
  EXPECT_EQ(observer_.num_hung[static_cast<int>(Role::kTarget)], 0);  // it may come back
  target_->Signal(SIGCONT);
  ASSERT_TRUE(WaitForAll());
  EXPECT_NE(target_facts_->incarnation, before);  // its sequences are gone
  EXPECT_TRUE(observer_.last(Role::kTarget).had_hung);
  EXPECT_FALSE(observer_.last(Role::kTarget).is_restart);
  EXPECT_TRUE(Verify(SequenceId(1)).ok());
}

TEST_P(WorkerLinksTest, AWorkerThatHangsForLongIsTold) {
  hang_grace_ = absl::Milliseconds(50);
  StartTarget();
  StartDraft();
  StartLinks();
  ASSERT_TRUE(WaitForAll());
  target_->Stop();
  target_link_->Send({});
  EXPECT_TRUE(absl::IsDeadlineExceeded(target_link_->Await(absl::Milliseconds(20)).status()));
  ASSERT_TRUE(RunEngineUntil([this] { return observer_.num_hung[0] + observer_.num_hung[1] > 0; }));
  StartTarget();  // what a supervisor does
  ASSERT_TRUE(WaitForAll());
  EXPECT_EQ(observer_.num_hung[static_cast<int>(Role::kTarget)], 1);
  EXPECT_TRUE(observer_.last(Role::kTarget).is_restart);
}

TEST_P(WorkerLinksTest, StepsWithoutASessionFailAndDoNotBlock) {
  StartLinks();
  target_link_->Send({});
  EXPECT_TRUE(absl::IsUnavailable(target_link_->Await(kLong).status()));
  EXPECT_FALSE(target_link_->IsConnected());
  EXPECT_FALSE(target_link_->Description().has_value());
}

INSTANTIATE_TEST_SUITE_P(Transports, WorkerLinksTest, testing::Bool(),
                         [](const auto& info) { return info.param ? "Ring" : "Grpc"; });

}  // namespace
}  // namespace tandem::gateway
