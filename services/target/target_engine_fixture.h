// A target engine with its pool, for the tests of this folder.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "common/ipc/pool_exchange.h"
#include "common/kv/page_pool.h"
#include "common/worker/fake_executor.h"
#include "common/worker/tiny_model.h"
#include "gtest/gtest.h"
#include "services/target/target_engine.h"

namespace tandem::target {

using worker::FakeExecutor;
using worker::FakeExecutorOptions;
using worker::SequenceStep;
using worker::VerifyResult;
using worker::VerifyStepResult;
using worker::WorkerStep;

inline constexpr int32_t kPagePositions = 8;
inline constexpr int32_t kNumPages = 96;
inline constexpr int32_t kNumSwapPages = 16;
inline constexpr int64_t kEpoch = 5;
inline constexpr int32_t kPoison = 48;
inline constexpr int32_t kFailing = 49;

// A stand-in whose logits depend on every byte of the history, the same with rows that are
// far away, and real models in which a difference of one bit between grouping rows this way
// or that could show.
enum class ExecutorKind { kFake, kFakeDevice, kTinyF16, kTinyQ8, kTinyQ4 };

inline std::unique_ptr<Executor> NewExecutor(ExecutorKind kind) {
  const ExecutorLimits limits = {
      .max_step_tokens = 64, .max_logits_rows = 40, .max_positions = 200};
  if (kind == ExecutorKind::kFake || kind == ExecutorKind::kFakeDevice) {
    return std::make_unique<FakeExecutor>(
        FakeExecutorOptions{.page_positions = kPagePositions,
                            .limits = limits,
                            .poison_token = kPoison,
                            .failing_token = kFailing,
                            .knows_greatest = kind != ExecutorKind::kFake});
  }
  const KvType kv_type = kind == ExecutorKind::kTinyF16  ? KvType::kF16
                         : kind == ExecutorKind::kTinyQ8 ? KvType::k8
                                                         : KvType::k4;
  return worker::LoadTinyModel({}, {.limits = limits,
                                    .num_threads = 2,
                                    .k_type = kv_type,
                                    .v_type = kv_type,
                                    .page_positions = kPagePositions,
                                    .progress = nullptr});
}

// A target with a pool, and the part of the gateway that hands out pages.
class Bench {
 public:
  explicit Bench(ExecutorKind kind = ExecutorKind::kFake)
      : executor_(NewExecutor(kind)),
        page_bytes_((executor_->kv_layout().page_bytes() + 63) / 64 * 64),
        pool_(SharedPool::Create({.epoch = kEpoch,
                                  .num_pages = kNumPages,
                                  .page_bytes = page_bytes_,
                                  .num_draft_probs_slots = 2})
                  .value()),
        free_(kNumPages) {
    const KvMemory pages = {
        .base = pool_.pages(), .page_bytes = page_bytes_, .num_pages = kNumPages};
    EXPECT_TRUE(executor_->AttachKv(pages).ok());
    swap_space_.emplace(worker::NewHostPageCopier(), pages, kNumSwapPages * page_bytes_);
    engine_.emplace(
        TargetEngine::Create(executor_.get(), pool_.control(), 100, &*swap_space_).value());
  }

  // Pages for `positions` positions, with their generations published.
  std::vector<worker::PageEntry> Pages(int32_t positions) {
    std::vector<worker::PageEntry> entries;
    const int32_t count = (positions + kPagePositions - 1) / kPagePositions;
    const std::vector<PageId> pages = free_.Allocate(Role::kTarget, count).value();
    for (const PageId page : pages) {
      entries.push_back({page, free_.generation(page)});
      pool_.control().SetGeneration(page, free_.generation(page));
    }
    return entries;
  }

  VerifyStepResult Run(WorkerStep step) {
    step.pool_epoch = kEpoch;
    return engine_->Run(step);
  }
  // One sequence's entry, alone in a step.
  VerifyResult RunOne(SequenceStep step) {
    const VerifyStepResult result = Run({.sequences = {std::move(step)}});
    EXPECT_TRUE(result.status.ok()) << result.status;
    return result.results.at(0);
  }
  void Open(int64_t id, SamplingParams params = {}) {
    EXPECT_TRUE(
        Run({.open = {{.sequence = SequenceId(id), .sampling = std::move(params)}}}).status.ok());
  }

  TargetEngine& engine() { return *engine_; }
  SharedPool& pool() { return pool_; }
  KvPagePool& free() { return free_; }
  int32_t num_forwards() const { return dynamic_cast<FakeExecutor&>(*executor_).num_forwards(); }
  int32_t num_rows_read() const { return dynamic_cast<FakeExecutor&>(*executor_).num_rows_read(); }
  std::string PageBytes() const {
    return {reinterpret_cast<const char*>(pool_.pages()),
            static_cast<size_t>(kNumPages * page_bytes_)};
  }

 private:
  std::unique_ptr<Executor> executor_;
  int64_t page_bytes_;
  SharedPool pool_;
  KvPagePool free_;
  std::optional<worker::SwapSpace> swap_space_;
  std::optional<TargetEngine> engine_;
};

}  // namespace tandem::target
