// A draft engine attached to a pool, for the tests of this folder.
#pragma once

#include <stdlib.h>
#include <unistd.h>

#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "common/ipc/pool_exchange.h"
#include "common/kv/page_pool.h"
#include "common/worker/fake_executor.h"
#include "gtest/gtest.h"
#include "services/draft/draft_engine.h"

namespace tandem::draft {

using worker::FakeExecutor;
using worker::ProposeResult;
using worker::ProposeStepResult;
using worker::SequenceStep;
using worker::WorkerStep;

inline constexpr int32_t kNumPages = 64;
inline constexpr int32_t kPagePositions = 16;  // 2048 / 128
inline constexpr int64_t kEpoch = 3;
inline constexpr int32_t kPoison = 48;

class Bench {
 public:
  explicit Bench(bool knows_greatest = false, bool can_draft = false)
      : executor_({.page_positions = 0,
                   .poison_token = kPoison,
                   .failing_token = 49,
                   .knows_greatest = knows_greatest,
                   .can_draft = can_draft}),
        pool_(MakePool(kEpoch)),
        server_(PoolServer::Start(path(), &pool_).value()),
        free_(kNumPages),
        engine_(&executor_, 100) {
    EXPECT_EQ(engine_.AttachPool(path(), kEpoch, absl::Seconds(5)).value(), kPagePositions);
  }

  static SharedPool MakePool(int64_t epoch) {
    return SharedPool::Create({.epoch = epoch,
                               .num_pages = kNumPages,
                               .page_bytes = 2048 + 64,
                               .num_draft_probs_slots = 2})
        .value();
  }
  std::string path() const { return folder_ + "/pool"; }

  std::vector<worker::PageEntry> Pages(int32_t positions) {
    std::vector<worker::PageEntry> entries;
    const int32_t count = (positions + kPagePositions - 1) / kPagePositions;
    const std::vector<PageId> pages = free_.Allocate(Role::kDraft, count).value();
    for (const PageId page : pages) {
      entries.push_back({page, free_.generation(page)});
      pool_.control().SetGeneration(page, free_.generation(page));
    }
    return entries;
  }
  ProposeStepResult Run(WorkerStep step) {
    step.pool_epoch = kEpoch;
    return engine_.Run(step);
  }
  ProposeResult RunOne(SequenceStep step) {
    const ProposeStepResult result = Run({.sequences = {std::move(step)}});
    EXPECT_TRUE(result.status.ok()) << result.status;
    return result.results.at(0);
  }
  void Open(int64_t id, SamplingParams params = {}) {
    params.used_vocab_size = 48;
    EXPECT_TRUE(
        Run({.open = {{.sequence = SequenceId(id), .sampling = std::move(params)}}}).status.ok());
  }

  DraftEngine& engine() { return engine_; }
  SharedPool& pool() { return pool_; }
  KvPagePool& free() { return free_; }
  FakeExecutor& executor() { return executor_; }

 private:
  // Removed at the end, after the server has removed its socket.
  struct Folder {
    Folder() {
      char name[] = "/tmp/tandem_draft_test_XXXXXX";
      path = mkdtemp(name);
    }
    ~Folder() {
      unlink((path + "/pool.lock").c_str());
      rmdir(path.c_str());
    }
    std::string path;
  };

  Folder folder_owner_;
  const std::string folder_ = folder_owner_.path;
  FakeExecutor executor_;
  SharedPool pool_;
  std::unique_ptr<PoolServer> server_;
  KvPagePool free_;
  DraftEngine engine_;
};

}  // namespace tandem::draft
