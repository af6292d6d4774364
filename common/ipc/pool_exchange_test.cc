#include "common/ipc/pool_exchange.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

#include <cstring>
#include <fstream>

#include "common/ipc/fd_messages.h"
#include "common/ipc/ipc_test_process.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace tandem {
namespace {

using testing::HasSubstr;

constexpr PoolGeometry kGeometry = {
    .epoch = 41, .num_pages = 3, .page_bytes = 4096, .num_draft_probs_slots = 1};

class PoolExchangeTest : public testing::Test {
 private:
  TestFolder folder_;

 protected:
  const std::string path_ = folder_.File("s");

  // A connection that says `bytes` and nothing else.
  OwnedFd SayRaw(const void* bytes, size_t size) {
    OwnedFd fd(socket(AF_UNIX, SOCK_SEQPACKET, 0));
    sockaddr_un address;
    EXPECT_TRUE(internal::FillAddress(path_, &address).ok());
    EXPECT_EQ(connect(fd.get(), reinterpret_cast<sockaddr*>(&address), sizeof(address)), 0);
    EXPECT_TRUE(internal::SendMessage(fd.get(), bytes, size, {}).ok());
    return fd;
  }
  internal::FdRequest GoodRequest() const {
    return {.magic = internal::kFdMagic,
            .protocol_version = internal::kFdProtocolVersion,
            .kind = static_cast<uint32_t>(FdKind::kPool),
            .fingerprint = PoolFingerprint(),
            .wanted_epoch = 0};
  }
  absl::StatusCode AnswerTo(const internal::FdRequest& request) {
    const OwnedFd fd = SayRaw(&request, sizeof(request));
    internal::FdReply reply;
    std::vector<OwnedFd> fds;
    EXPECT_TRUE(internal::ReceiveMessage(fd.get(), &reply, sizeof(reply),
                                         absl::Now() + absl::Seconds(5), &fds)
                    .ok());
    EXPECT_EQ(fds.size(), reply.status_code == 0 ? 1u : 0u);
    return static_cast<absl::StatusCode>(reply.status_code);
  }
};

TEST_F(PoolExchangeTest, AnotherProcessReadsAndWritesTheSamePages) {
  TestProcess child([this] {
    absl::StatusOr<SharedPool> pool = absl::UnavailableError("");
    while (absl::IsUnavailable(pool.status())) {
      pool = ConnectPool({.path = path_, .epoch = 41});
    }
    if (!pool.ok()) return 1;
    // Page 1 is filled by the parent, answered in page 2.
    while (pool->control().generation(PageId(1)) != 5) {
    }
    if (pool->pages()[4096] != 0xab) return 2;
    pool->pages()[2 * 4096] = 0xcd;
    pool->control().SetGeneration(PageId(2), 6);
    return 0;
  });
  SharedPool pool = SharedPool::Create(kGeometry).value();
  auto server = PoolServer::Start(path_, &pool).value();
  pool.pages()[4096] = 0xab;
  pool.control().SetGeneration(PageId(1), 5);
  EXPECT_EQ(child.Wait(), 0);
  EXPECT_EQ(pool.control().generation(PageId(2)), 6u);
  EXPECT_EQ(pool.pages()[2 * 4096], 0xcd);
}

TEST_F(PoolExchangeTest, MemoryOutlivesTheProcessThatMadeIt) {
  TestProcess target([this] {
    SharedPool pool = SharedPool::Create(kGeometry).value();
    auto server = PoolServer::Start(path_, &pool).value();
    pool.pages()[7] = 0x77;
    pool.control().SetGeneration(PageId(0), 1);
    pause();
    return 0;
  });
  absl::StatusOr<SharedPool> pool = absl::UnavailableError("");
  while (absl::IsUnavailable(pool.status())) pool = ConnectPool({.path = path_});
  ASSERT_TRUE(pool.ok()) << pool.status();
  while (pool->control().generation(PageId(0)) != 1) {
  }
  target.Kill();
  EXPECT_EQ(target.Wait(), 128 + SIGKILL);
  EXPECT_EQ(pool->pages()[7], 0x77);
  pool->pages()[3 * 4096 - 1] = 1;

  // The dead process left its socket; the next one cleans it up, with a new epoch.
  PoolGeometry next = kGeometry;
  next.epoch = 42;
  SharedPool new_pool = SharedPool::Create(next).value();
  auto server = PoolServer::Start(path_, &new_pool);
  ASSERT_TRUE(server.ok()) << server.status();
  EXPECT_EQ(ConnectPool({.path = path_, .epoch = 41}).status().code(), absl::StatusCode::kAborted);
  EXPECT_EQ(ConnectPool({.path = path_, .epoch = 42})->geometry().epoch, 42);
}

TEST_F(PoolExchangeTest, SocketIsForItsOwnerOnlyAndGoesWithTheServer) {
  SharedPool pool = SharedPool::Create(kGeometry).value();
  {
    auto server = PoolServer::Start(path_, &pool).value();
    struct stat info;
    ASSERT_EQ(stat(path_.c_str(), &info), 0);
    EXPECT_EQ(info.st_mode & 0777, 0600u);
  }
  EXPECT_NE(access(path_.c_str(), F_OK), 0);
  EXPECT_EQ(ConnectPool({.path = path_}).status().code(), absl::StatusCode::kUnavailable);
}

TEST_F(PoolExchangeTest, SecondInstanceOnOnePathIsRefused) {
  SharedPool pool = SharedPool::Create(kGeometry).value();
  auto server = PoolServer::Start(path_, &pool).value();
  const auto second = PoolServer::Start(path_, &pool);
  EXPECT_EQ(second.status().code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_TRUE(ConnectPool({.path = path_}).ok());
}

TEST_F(PoolExchangeTest, PathThatIsNoSocketIsLeftAlone) {
  std::ofstream(path_) << "precious";
  SharedPool pool = SharedPool::Create(kGeometry).value();
  EXPECT_EQ(PoolServer::Start(path_, &pool).status().code(), absl::StatusCode::kInvalidArgument);
  std::string content;
  std::ifstream(path_) >> content;
  EXPECT_EQ(content, "precious");
  EXPECT_EQ(PoolServer::Start("/tmp/" + std::string(200, 'x'), &pool).status().code(),
            absl::StatusCode::kInvalidArgument);
}

TEST_F(PoolExchangeTest, AnotherUserIsRefused) {
  SharedPool pool = SharedPool::Create(kGeometry).value();
  auto server = PoolServer::Start(path_, &pool, /*allowed_uid=*/geteuid() + 1).value();
  const auto refused = ConnectPool({.path = path_});
  EXPECT_EQ(refused.status().code(), absl::StatusCode::kPermissionDenied);
  EXPECT_THAT(std::string(refused.status().message()), HasSubstr("may not connect"));
}

TEST_F(PoolExchangeTest, StrangersGetAReasonAndTheNextClientThePool) {
  SharedPool pool = SharedPool::Create(kGeometry).value();
  auto server = PoolServer::Start(path_, &pool).value();
  internal::FdRequest request = GoodRequest();
  EXPECT_EQ(AnswerTo(request), absl::StatusCode::kOk);
  request.fingerprint ^= 1;
  EXPECT_EQ(AnswerTo(request), absl::StatusCode::kFailedPrecondition);
  request = GoodRequest();
  request.magic = 0;
  EXPECT_EQ(AnswerTo(request), absl::StatusCode::kFailedPrecondition);
  request = GoodRequest();
  ++request.protocol_version;
  EXPECT_EQ(AnswerTo(request), absl::StatusCode::kFailedPrecondition);
  request = GoodRequest();
  request.kind = 99;
  EXPECT_EQ(AnswerTo(request), absl::StatusCode::kInvalidArgument);
  request = GoodRequest();
  request.wanted_epoch = 40;
  EXPECT_EQ(AnswerTo(request), absl::StatusCode::kAborted);
  // Too short, too long, and silent: dropped without an answer.
  SayRaw(&request, 3);
  SayRaw(std::string(5000, 'x').data(), 5000);
  EXPECT_TRUE(ConnectPool({.path = path_}).ok());
}

// What a false server sends must not harm a client.
class FalseServerTest : public PoolExchangeTest {
 protected:
  absl::Status ConnectTo(int64_t epoch, int fd) {
    auto listener =
        FdListener::Listen({.path = path_, .kind = FdKind::kPool, .fingerprint = PoolFingerprint()})
            .value();
    std::thread server([&] {
      const FdClient client = listener->Accept().value();
      EXPECT_TRUE(SendFds(client, absl::OkStatus(), epoch, {fd}).ok());
    });
    const absl::Status status = ConnectPool({.path = path_}).status();
    server.join();
    return status;
  }
};

TEST_F(FalseServerTest, ClientRefusesMemoryThatIsNoPool) {
  const SharedPool pool = SharedPool::Create(kGeometry).value();
  EXPECT_TRUE(ConnectTo(41, pool.fd()).ok());
  EXPECT_EQ(ConnectTo(40, pool.fd()).code(), absl::StatusCode::kDataLoss);

  const SharedMemory zeros = SharedMemory::Create("zeros", 1 << 16).value();
  EXPECT_EQ(ConnectTo(41, zeros.fd()).code(), absl::StatusCode::kFailedPrecondition);

  // A pool that ends before its pages do.
  const SharedMemory cut = SharedMemory::Create("cut", pool.control().pages_offset()).value();
  std::memcpy(cut.memory().data(), pool.pages() - pool.control().pages_offset(),
              pool.control().pages_offset());
  EXPECT_EQ(ConnectTo(41, cut.fd()).code(), absl::StatusCode::kDataLoss);

  // Memory that could be shortened under us.
  const OwnedFd unsealed(memfd_create("unsealed", MFD_CLOEXEC));
  ASSERT_EQ(ftruncate(unsealed.get(), 1 << 16), 0);
  EXPECT_EQ(ConnectTo(41, unsealed.get()).code(), absl::StatusCode::kFailedPrecondition);
  const OwnedFd directory(open("/tmp", O_RDONLY));
  EXPECT_EQ(ConnectTo(41, directory.get()).code(), absl::StatusCode::kFailedPrecondition);
}

TEST_F(PoolExchangeTest, ServerThatNeverAnswersCostsTheDeadlineOnly) {
  auto listener = FdListener::Listen({.path = path_}).value();
  const auto pool = ConnectPool({.path = path_, .timeout = absl::Milliseconds(50)});
  EXPECT_EQ(pool.status().code(), absl::StatusCode::kDeadlineExceeded);
}

TEST(SharedMemoryTest, SizeCannotBeChanged) {
  const SharedMemory memory = SharedMemory::Create("fixed", 8192).value();
  EXPECT_NE(ftruncate(memory.fd(), 0), 0);
  EXPECT_NE(ftruncate(memory.fd(), 1 << 20), 0);
  EXPECT_EQ(SharedMemory::Create("none", 0).status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(SharedMemory::Create("huge", INT64_MAX).status().code(),
            absl::StatusCode::kResourceExhausted);
}

TEST(SharedPoolTest, ControlBlockCanBeMappedAlone) {
  SharedPool pool = SharedPool::Create(kGeometry).value();
  SharedPool control = SharedPool::Map(OwnedFd(dup(pool.fd())), /*map_pages=*/false).value();
  EXPECT_EQ(control.pages(), nullptr);
  control.control().SetGeneration(PageId(0), 3);
  EXPECT_EQ(pool.control().generation(PageId(0)), 3u);
}

}  // namespace
}  // namespace tandem
