// Pages on a device between processes, with a device that needs no GPU.
#include "common/ipc/device_pages.h"

#include <sys/socket.h>
#include <sys/un.h>

#include <cstring>

#include "common/ipc/device_diagnosis.h"
#include "common/ipc/fake_pages_device.h"
#include "common/ipc/fd_messages.h"
#include "common/ipc/ipc_test_process.h"
#include "common/ipc/pool_exchange.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace tandem {
namespace {

using testing::HasSubstr;
using Sharing = FakePagesDeviceOptions::Sharing;

constexpr PoolGeometry kGeometry = {.epoch = 41,
                                    .num_pages = 3,
                                    .page_bytes = 4096,
                                    .num_draft_probs_slots = 1,
                                    .page_memory = PageMemory::kDevice};

class DevicePagesTest : public testing::Test {
 private:
  TestFolder folder_;

 protected:
  const std::string path_ = folder_.File("s");
  FakePagesDevice device_;

  // The pool of another process, as soon as there is one.
  absl::StatusOr<SharedPool> WaitForPool(PagesDevice* device, int64_t epoch = 0) {
    absl::StatusOr<SharedPool> pool = absl::UnavailableError("");
    while (absl::IsUnavailable(pool.status())) {
      pool = ConnectPool({.path = path_, .epoch = epoch, .device = device});
    }
    return pool;
  }
  // What a draft on `device` gets of a pool of ours.
  absl::StatusOr<SharedPool> Attach(FakePagesDeviceOptions device) {
    SharedPool pool = SharedPool::Create(kGeometry, &device_).value();
    auto server = PoolServer::Start(path_, &pool).value();
    FakePagesDevice peer(std::move(device));
    return ConnectPool({.path = path_, .device = &peer});
  }
};

class TransportTest : public DevicePagesTest, public testing::WithParamInterface<PagesTransport> {};

TEST_P(TransportTest, AnotherProcessReadsAndWritesTheSamePages) {
  const PagesTransport transport = GetParam();
  TestProcess child([this, transport] {
    absl::StatusOr<SharedPool> pool = WaitForPool(&device_);
    if (!pool.ok()) return 1;
    if (pool->transport() != transport || !pool->transport_note().empty()) return 2;
    while (pool->control().generation(PageId(1)) != 5) {
    }
    if (pool->pages()[4096] != 0xab) return 3;
    pool->pages()[2 * 4096] = 0xcd;
    pool->control().SetGeneration(PageId(2), 6);
    return 0;
  });
  SharedPool pool = SharedPool::Create(kGeometry, &device_, &transport).value();
  auto server = PoolServer::Start(path_, &pool).value();
  pool.pages()[4096] = 0xab;
  pool.control().SetGeneration(PageId(1), 5);
  EXPECT_EQ(child.Wait(), 0);
  EXPECT_EQ(pool.control().generation(PageId(2)), 6u);
  EXPECT_EQ(pool.pages()[2 * 4096], 0xcd);
}

TEST_P(TransportTest, DraftOutlivesTheTargetAndTakesTheNextPool) {
  const PagesTransport transport = GetParam();
  TestProcess target([this, transport] {
    SharedPool pool = SharedPool::Create(kGeometry, &device_, &transport).value();
    auto server = PoolServer::Start(path_, &pool).value();
    pause();
    return 0;
  });
  absl::StatusOr<SharedPool> pool = WaitForPool(&device_);
  ASSERT_TRUE(pool.ok()) << pool.status();
  target.Kill();
  EXPECT_EQ(target.Wait(), 128 + SIGKILL);
  pool->pages()[3 * 4096 - 1] = 1;

  PoolGeometry next = kGeometry;
  next.epoch = 42;
  SharedPool new_pool = SharedPool::Create(next, &device_, &transport).value();
  auto server = PoolServer::Start(path_, &new_pool).value();
  EXPECT_EQ(ConnectPool({.path = path_, .epoch = 41, .device = &device_}).status().code(),
            absl::StatusCode::kAborted);
  EXPECT_EQ(WaitForPool(&device_, 42)->geometry().epoch, 42);
}

TEST_P(TransportTest, TargetServesTheNextDraftWhenOneIsKilled) {
  const PagesTransport transport = GetParam();
  TestProcess draft([this] {
    const absl::StatusOr<SharedPool> pool = WaitForPool(&device_);
    pause();
    return 0;
  });
  SharedPool pool = SharedPool::Create(kGeometry, &device_, &transport).value();
  auto server = PoolServer::Start(path_, &pool).value();
  draft.Kill();
  draft.Wait();
  TestProcess next([this] { return WaitForPool(&device_).ok() ? 0 : 1; });
  EXPECT_EQ(next.Wait(), 0);
}

INSTANTIATE_TEST_SUITE_P(Transports, TransportTest,
                         testing::Values(PagesTransport::kIpcHandle,
                                         PagesTransport::kFileDescriptor),
                         [](const auto& info) { return PagesTransportName(info.param); });

TEST_F(DevicePagesTest, FirstTransportThatTheDeviceSupportsIsTaken) {
  FakePagesDeviceOptions options;
  const auto made = [&options] {
    FakePagesDevice device(options);
    return static_cast<PagesTransport>(
        MakeProbedPages(device, kGeometry, nullptr)->handle.transport);
  };
  EXPECT_EQ(made(), PagesTransport::kIpcHandle);
  options.supported.erase(PagesTransport::kIpcHandle);
  EXPECT_EQ(made(), PagesTransport::kFileDescriptor);
  options.supported.erase(PagesTransport::kFileDescriptor);
  EXPECT_EQ(made(), PagesTransport::kSplit);

  FakePagesDevice device(options);
  const PagesTransport wanted = PagesTransport::kIpcHandle;
  const absl::Status refused = MakeProbedPages(device, kGeometry, &wanted).status();
  EXPECT_EQ(refused.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(refused.message()), HasSubstr("--pool-transport ipc"));
}

TEST_F(DevicePagesTest, DraftThatCannotShareGetsPagesOfItsOwnAndSaysWhy) {
  for (const Sharing sharing : {Sharing::kFails, Sharing::kIsACopy, Sharing::kIsOther}) {
    const absl::StatusOr<SharedPool> pool = Attach({.sharing = sharing});
    ASSERT_TRUE(pool.ok()) << pool.status();
    EXPECT_EQ(pool->transport(), PagesTransport::kSplit);
    EXPECT_NE(pool->pages(), nullptr);
    EXPECT_THAT(pool->transport_note(), HasSubstr("cannot share device memory"));
    EXPECT_THAT(pool->transport_note(), HasSubstr("--pool-transport"));
  }
}

TEST_F(DevicePagesTest, SplitIsNoFailureWhereTheTargetChoseIt) {
  FakePagesDevice device({.supported = {PagesTransport::kSplit}});
  SharedPool pool = SharedPool::Create(kGeometry, &device).value();
  auto server = PoolServer::Start(path_, &pool).value();
  const absl::StatusOr<SharedPool> draft = ConnectPool({.path = path_, .device = &device});
  ASSERT_TRUE(draft.ok()) << draft.status();
  EXPECT_EQ(draft->transport(), PagesTransport::kSplit);
  EXPECT_EQ(draft->transport_note(), "");
  pool.pages()[0] = 1;
  EXPECT_EQ(draft->pages()[0], 0);
  pool.control().SetGeneration(PageId(0), 3);
  EXPECT_EQ(draft->control().generation(PageId(0)), 3u);
}

TEST_F(DevicePagesTest, AnotherDeviceIsRefused) {
  const absl::Status status = Attach({.uuid = 8}).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(status.message()), HasSubstr("another GPU"));
}

TEST_F(DevicePagesTest, HostAndDeviceDoNotMix) {
  {
    SharedPool pool = SharedPool::Create(kGeometry, &device_).value();
    auto server = PoolServer::Start(path_, &pool).value();
    const absl::Status status = ConnectPool({.path = path_}).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
    EXPECT_THAT(std::string(status.message()), HasSubstr("the same --device"));
    // The gateway needs the control block only.
    const auto control = ConnectPool({.path = path_, .map_pages = false});
    ASSERT_TRUE(control.ok()) << control.status();
    EXPECT_EQ(control->pages(), nullptr);
  }
  PoolGeometry host = kGeometry;
  host.page_memory = PageMemory::kHost;
  SharedPool pool = SharedPool::Create(host).value();
  auto server = PoolServer::Start(path_, &pool).value();
  EXPECT_EQ(ConnectPool({.path = path_, .device = &device_}).status().code(),
            absl::StatusCode::kFailedPrecondition);
}

TEST_F(DevicePagesTest, HandleThatContradictsTheGeometryIsRefused) {
  SharedPool pool = SharedPool::Create(kGeometry, &device_).value();
  auto server = PoolServer::Start(path_, &pool).value();
  DevicePagesHandle handle = pool.control().device_pages();
  for (const int64_t num_bytes : {int64_t{0}, int64_t{-1}, handle.num_bytes + 1, INT64_MAX}) {
    handle.num_bytes = num_bytes;
    pool.control().SetDevicePages(handle);
    EXPECT_EQ(ConnectPool({.path = path_, .device = &device_}).status().code(),
              absl::StatusCode::kDataLoss);
  }
}

// A client that got the descriptors and then says rubbish, or nothing and is gone.
TEST_F(DevicePagesTest, StrangeReportsDoNotStopTheServer) {
  SharedPool pool = SharedPool::Create(kGeometry, &device_).value();
  auto server = PoolServer::Start(path_, &pool).value();
  const internal::PagesReport wrong_magic = {.magic = 1, .probe = 2};
  for (const size_t size : {size_t{0}, size_t{3}, sizeof(wrong_magic)}) {
    FdGrant grant =
        ConnectFds({.path = path_, .kind = FdKind::kPool, .fingerprint = PoolFingerprint()})
            .value();
    if (size == 0) continue;
    EXPECT_TRUE(internal::SendMessage(grant.connection.get(), &wrong_magic, size, {}).ok());
  }
  EXPECT_TRUE(ConnectPool({.path = path_, .device = &device_}).ok());
}

TEST(DeviceDiagnosisTest, NamesTheCauseAndTheRemedy) {
  SharingFacts facts = {.os_release = "6.1.0", .device_name = "NVIDIA GeForce RTX 3070"};
  EXPECT_THAT(DiagnoseSharing(facts), HasSubstr("no known cause"));
  facts.same_shared_memory = false;
  EXPECT_THAT(DiagnoseSharing(facts), HasSubstr("/dev/shm"));
  facts.same_pid_namespace = false;
  EXPECT_THAT(DiagnoseSharing(facts), HasSubstr("PID namespaces"));
  facts.device_name = "NVIDIA A16-8Q";
  EXPECT_THAT(DiagnoseSharing(facts), HasSubstr("virtual GPU"));
  facts.os_release = "5.15.153.1-microsoft-standard-WSL2";
  EXPECT_THAT(DiagnoseSharing(facts), HasSubstr("WSL2"));
  const SharingFacts mig = {.os_release = "6.1.0", .device_name = "NVIDIA H100 MIG 1g.10gb"};
  EXPECT_THAT(DiagnoseSharing(mig), HasSubstr("MIG"));
  // Names that end in a letter and hold a dash are not all virtual.
  EXPECT_THAT(DiagnoseSharing({.os_release = "6.1", .device_name = "NVIDIA A100-SXM4-40GB"}),
              HasSubstr("no known cause"));
}

TEST(DeviceDiagnosisTest, OwnProcessSharesEverythingWithItself) {
  const SharingFacts facts = GatherSharingFacts(getpid(), "x");
  EXPECT_TRUE(facts.same_pid_namespace);
  EXPECT_TRUE(facts.same_shared_memory);
  EXPECT_FALSE(facts.os_release.empty());
  EXPECT_FALSE(GatherSharingFacts(0, "x").same_pid_namespace);
}

}  // namespace
}  // namespace tandem
