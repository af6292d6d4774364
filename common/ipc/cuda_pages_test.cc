// Device memory between two processes, on a GPU. The parent never touches CUDA, which does
// not survive a fork: targets and drafts are children.
#include "common/ipc/cuda_pages.h"

#include <unistd.h>

#include <vector>

#include "absl/time/clock.h"
#include "common/ipc/ipc_test_process.h"
#include "common/ipc/pool_exchange.h"
#include "gtest/gtest.h"

namespace tandem {
namespace {

constexpr int64_t kPageBytes = 1 << 20;
constexpr absl::Duration kTimeout = absl::Seconds(5);

PoolGeometry Geometry(int64_t epoch) {
  return {.epoch = epoch,
          .num_pages = 64,
          .page_bytes = kPageBytes,
          .num_draft_probs_slots = 1,
          .page_memory = PageMemory::kDevice};
}

bool WritePage(SharedPool& pool, int32_t page, uint8_t value) {
  const std::vector<uint8_t> bytes(kPageBytes, value);
  return pool.device_pages()->Write(page * kPageBytes, bytes, kTimeout).ok();
}

// -1 when the page cannot be read or holds several values.
int ReadPage(SharedPool& pool, int32_t page) {
  std::vector<uint8_t> bytes(kPageBytes);
  if (!pool.device_pages()->Read(page * kPageBytes, absl::MakeSpan(bytes), kTimeout).ok()) {
    return -1;
  }
  for (const uint8_t byte : bytes) {
    if (byte != bytes[0]) return -1;
  }
  return bytes[0];
}

// A child that waits longer than this has lost its peer.
constexpr absl::Duration kPatience = absl::Seconds(30);

void AwaitGeneration(SharedPool& pool, int32_t page, uint32_t generation) {
  const absl::Time deadline = absl::Now() + kPatience;
  while (pool.control().generation(PageId(page)) != generation && absl::Now() < deadline) {
    usleep(100);
  }
}

class CudaPagesTest : public testing::TestWithParam<PagesTransport> {
 private:
  TestFolder folder_;

 protected:
  void SetUp() override {
    if (access("/dev/nvidiactl", F_OK) != 0) GTEST_SKIP() << "no NVIDIA GPU on this machine";
    TestProcess supports([transport = GetParam()] {
      DeviceLedger ledger;
      const auto device = OpenCudaPagesDevice(0, &ledger);
      if (!device.ok()) return 1;
      return (*device)->Supports(transport) ? 0 : 2;
    });
    const int answer = supports.Wait();
    if (answer == 1) GTEST_SKIP() << "no CUDA device can be used";
    if (answer == 2) GTEST_SKIP() << "the device does not support this transport";
  }

  // A target that fills page 1 with 0xa1, then waits until a draft has filled page 2.
  int RunTarget(int64_t epoch, bool stays) {
    DeviceLedger ledger;
    const auto device = OpenCudaPagesDevice(0, &ledger);
    const PagesTransport transport = GetParam();
    absl::StatusOr<SharedPool> pool =
        SharedPool::Create(Geometry(epoch), device->get(), &transport);
    if (!pool.ok()) return 1;
    if (ledger.bytes(MemoryKind::kKvPages) < 64 * kPageBytes) return 2;
    if (!WritePage(*pool, 1, 0xa1)) return 3;
    pool->control().SetGeneration(PageId(1), 1);
    const auto server = PoolServer::Start(path_, &*pool);
    if (!server.ok()) return 4;
    AwaitGeneration(*pool, 2, 2);
    if (ReadPage(*pool, 2) != 0xb2) return 5;
    pool->control().SetGeneration(PageId(3), 3);
    if (stays) pause();
    return 0;
  }

  // A draft that finds the target's page and fills its own.
  int RunDraft(int64_t epoch, bool stays) {
    DeviceLedger ledger;
    const auto device = OpenCudaPagesDevice(0, &ledger);
    absl::StatusOr<SharedPool> pool = Connect(**device, epoch);
    if (!pool.ok()) return 1;
    if (const int result = UsePages(*pool); result != 0) return result;
    if (ledger.bytes(MemoryKind::kKvPages) != 0) return 6;  // they are the target's
    if (stays) pause();
    return 0;
  }

  absl::StatusOr<SharedPool> Connect(PagesDevice& device, int64_t epoch) {
    const absl::Time deadline = absl::Now() + kPatience;
    absl::StatusOr<SharedPool> pool = absl::UnavailableError("");
    // ABORTED: the target of another epoch is still there.
    while ((absl::IsUnavailable(pool.status()) || absl::IsAborted(pool.status())) &&
           absl::Now() < deadline) {
      pool = ConnectPool({.path = path_, .epoch = epoch, .device = &device});
      usleep(1000);
    }
    return pool;
  }
  int UsePages(SharedPool& pool) {
    if (pool.transport() != GetParam() || !pool.transport_note().empty()) return 2;
    if (ReadPage(pool, 1) != 0xa1) return 3;
    if (!WritePage(pool, 2, 0xb2)) return 4;
    pool.control().SetGeneration(PageId(2), 2);
    AwaitGeneration(pool, 3, 3);
    return 0;
  }

  const std::string path_ = folder_.File("s");
};

TEST_P(CudaPagesTest, TwoProcessesReadAndWriteTheSamePages) {
  TestProcess target([this] { return RunTarget(7, /*stays=*/false); });
  TestProcess draft([this] { return RunDraft(7, /*stays=*/false); });
  EXPECT_EQ(draft.Wait(), 0);
  EXPECT_EQ(target.Wait(), 0);
}

TEST_P(CudaPagesTest, TargetGoesOnWhenTheDraftIsKilled) {
  TestProcess target([this] { return RunTarget(7, /*stays=*/true); });
  for (int i = 0; i < 3; ++i) {
    TestProcess draft([this] { return RunDraft(7, /*stays=*/true); });
    usleep(i * 400 * 1000);  // killed while it starts, attaches, and has attached
    draft.Kill();
    draft.Wait();
  }
  TestProcess last([this] { return RunDraft(7, /*stays=*/false); });
  EXPECT_EQ(last.Wait(), 0);
}

TEST_P(CudaPagesTest, DraftTakesTheNextPoolWhenTheTargetIsKilled) {
  TestProcess draft([this] {
    DeviceLedger ledger;
    const auto device = OpenCudaPagesDevice(0, &ledger);
    absl::StatusOr<SharedPool> pool = Connect(**device, 7);
    if (!pool.ok()) return 1;
    if (const int result = UsePages(*pool); result != 0) return result;
    // The target dies now. What is still mapped may be read or fail, but not hang or crash.
    pool->control().SetGeneration(PageId(4), 4);
    absl::StatusOr<SharedPool> next = absl::UnavailableError("");
    for (const absl::Time deadline = absl::Now() + kPatience;
         !next.ok() && absl::Now() < deadline;) {
      ReadPage(*pool, 1);
      next = ConnectPool({.path = path_, .epoch = 8, .device = device->get()});
      usleep(1000);
    }
    pool = absl::UnavailableError("");  // the old one is let go of after the new one came
    return next.ok() ? UsePages(*next) : 7;
  });
  {
    TestProcess target([this] { return RunTarget(7, /*stays=*/true); });
    absl::StatusOr<SharedPool> control = absl::UnavailableError("");
    for (const absl::Time deadline = absl::Now() + kPatience;
         !control.ok() && absl::Now() < deadline;) {
      control = ConnectPool({.path = path_, .map_pages = false});
    }
    ASSERT_TRUE(control.ok()) << control.status();
    AwaitGeneration(*control, 4, 4);
    target.Kill();
    target.Wait();
  }
  TestProcess target([this] { return RunTarget(8, /*stays=*/false); });
  EXPECT_EQ(target.Wait(), 0);
  EXPECT_EQ(draft.Wait(), 0);
}

INSTANTIATE_TEST_SUITE_P(Transports, CudaPagesTest,
                         testing::Values(PagesTransport::kIpcHandle,
                                         PagesTransport::kFileDescriptor),
                         [](const auto& info) { return PagesTransportName(info.param); });

}  // namespace
}  // namespace tandem
