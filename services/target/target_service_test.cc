#include "services/target/target_service.h"

#include <stdlib.h>
#include <sys/stat.h>

#include <random>
#include <string>
#include <thread>

#include "common/ipc/pool_exchange.h"
#include "common/rpc/worker/worker_server.h"
#include "common/worker/fake_executor.h"
#include "common/worker/ring_server.h"
#include "gtest/gtest.h"
#include "services/target/target_service_clients.h"

namespace tandem::target {
namespace {

constexpr int32_t kNumPages = 32;
constexpr int64_t kEpoch = 11;
constexpr int32_t kFailing = 49;

class Folder {
 public:
  Folder() {
    char name[] = "/tmp/tandem_target_test_XXXXXX";
    path_ = mkdtemp(name);
  }
  ~Folder() {
    for (const char* file : {"/t.ring.lock", "/t"}) unlink((path_ + file).c_str());
    rmdir(path_.c_str());
  }
  const std::string& path() const { return path_; }

 private:
  std::string path_;
};

class TargetServiceTest : public testing::TestWithParam<bool> {
 protected:
  TargetServiceTest()
      : executor_(),
        pool_(SharedPool::Create({.epoch = kEpoch, .num_pages = kNumPages, .page_bytes = 2048})
                  .value()) {
    EXPECT_TRUE(
        executor_.AttachKv({.base = pool_.pages(), .page_bytes = 2048, .num_pages = kNumPages})
            .ok());
    engine_.emplace(TargetEngine::Create(&executor_, pool_.control(), 8).value());
    server_ = worker::WorkerServer::Start("unix:" + folder_.path() + "/t", &service_).value();
    stub_ = v1::TargetService::NewStub(
        grpc::CreateChannel("unix:" + folder_.path() + "/t", grpc::InsecureChannelCredentials()));
    ring_server_ = worker::RingServer::Start(ring_path(), -1, [this](auto ring) {
                     service_.ServeRing(std::move(ring));
                   }).value();
    for (int32_t page = 0; page < kNumPages; ++page) pool_.control().SetGeneration(PageId(page), 1);
  }
  ~TargetServiceTest() override { service_.Stop(); }

  void SetEngine() {
    service_.SetEngine(&*engine_, {.model_name = "fake", .vocab_size = 50, .incarnation = 77});
  }
  std::string ring_path() const { return folder_.path() + "/t.ring"; }
  std::unique_ptr<Client> Connect() {
    if (GetParam()) return std::make_unique<RingClient>(ring_path());
    return std::make_unique<GrpcClient>(stub_.get());
  }
  // A session that is let in: the one before may still be on its way out.
  std::unique_ptr<Client> ConnectUntilIn() {
    while (true) {
      std::unique_ptr<Client> client = Connect();
      v1::VerifyRequest empty;
      empty.set_pool_epoch(kEpoch);
      if (client->Call(empty).has_value()) return client;
    }
  }

  static v1::VerifyRequest OpenRequest(float temperature) {
    v1::VerifyRequest request;
    request.set_step_id(1);
    request.set_pool_epoch(kEpoch);
    v1::OpenSequence* open = request.add_open();
    open->set_sequence_id(5);
    v1::Sampling* sampling = open->mutable_sampling();
    sampling->set_temperature(temperature);
    sampling->set_top_p(0.9f);
    sampling->set_repetition_penalty(1.0f);
    sampling->set_seed(3);
    v1::SequenceStep* step = request.add_sequences();
    step->set_sequence_id(5);
    for (int32_t id = 1; id < 20; ++id) step->add_token_ids(id);
    for (int32_t page = 0; page < 8; ++page) {
      step->add_page_ids(page);
      step->add_page_generations(1);
    }
    step->set_sample(true);
    step->set_draft_probs_slot(-1);
    return request;
  }
  static v1::VerifyRequest NextRequest(int32_t position, int32_t token) {
    v1::VerifyRequest request;
    request.set_step_id(position);
    request.set_pool_epoch(kEpoch);
    v1::SequenceStep* step = request.add_sequences();
    step->set_sequence_id(5);
    step->set_start_position(position);
    step->add_token_ids(token);
    step->set_sample(true);
    step->set_draft_probs_slot(-1);
    return request;
  }
  std::vector<int32_t> Generate(Client& client, int32_t count) {
    std::vector<int32_t> output;
    v1::VerifyRequest request = OpenRequest(0.8f);
    for (int32_t i = 0; i < count; ++i) {
      const auto response = client.Call(request);
      if (!response.has_value() || response->results_size() != 1 ||
          response->results(0).error_code() != 0) {
        ADD_FAILURE() << (response.has_value() ? response->ShortDebugString() : "session over");
        return output;
      }
      EXPECT_EQ(response->step_id(), request.step_id());
      output.push_back(response->results(0).next_token_id());
      request = NextRequest(19 + i, output.back());
    }
    return output;
  }

  Folder folder_;
  worker::FakeExecutor executor_;
  SharedPool pool_;
  std::optional<TargetEngine> engine_;
  std::vector<absl::Status> device_failures_;
  TargetService service_{
      [this](const absl::Status& status) { device_failures_.push_back(status); }};
  std::unique_ptr<worker::WorkerServer> server_;
  std::unique_ptr<v1::TargetService::Stub> stub_;
  std::unique_ptr<worker::RingServer> ring_server_;
};

TEST_P(TargetServiceTest, GeneratesTheSameOverEitherTransport) {
  SetEngine();
  const std::vector<int32_t> direct = [this] {
    GrpcClient client(stub_.get());
    return Generate(client, 30);
  }();
  EXPECT_EQ(direct.size(), 30u);
  EXPECT_EQ(Generate(*ConnectUntilIn(), 30), direct);
}

TEST_P(TargetServiceTest, EndOfTheSessionDropsItsSequences) {
  SetEngine();
  Generate(*Connect(), 2);
  const auto response = ConnectUntilIn()->Call(NextRequest(20, 1));
  ASSERT_TRUE(response.has_value());
  EXPECT_EQ(response->results(0).error_code(), static_cast<int>(absl::StatusCode::kNotFound));
}

TEST_P(TargetServiceTest, SecondGatewayIsRefusedWhileThereIsOne) {
  SetEngine();
  const std::unique_ptr<Client> first = Connect();
  Generate(*first, 1);
  EXPECT_FALSE(Connect()->Call(NextRequest(20, 1)).has_value());
  GrpcClient over_grpc(stub_.get());
  EXPECT_FALSE(over_grpc.Call(NextRequest(20, 1)).has_value());
  EXPECT_EQ(over_grpc.Finish().code(), absl::StatusCode::kUnavailable);
  EXPECT_TRUE(first->Call(NextRequest(20, 1)).has_value());
}

TEST_P(TargetServiceTest, WholeStepErrorsComeInTheAnswer) {
  SetEngine();
  const std::unique_ptr<Client> client = Connect();
  v1::VerifyRequest request = OpenRequest(0.0f);
  request.set_pool_epoch(kEpoch - 1);
  EXPECT_EQ(client->Call(request)->error_code(), static_cast<int>(absl::StatusCode::kAborted));
  request = OpenRequest(0.0f);
  request.mutable_sequences(0)->add_page_ids(1);
  EXPECT_EQ(client->Call(request)->error_code(),
            static_cast<int>(absl::StatusCode::kInvalidArgument));
  EXPECT_EQ(Generate(*client, 3).size(), 3u);
}

TEST_P(TargetServiceTest, NothingIsServedBeforeTheModelIsLoaded) {
  v1::GetInfoResponse info;
  grpc::ClientContext before;
  EXPECT_EQ(stub_->GetInfo(&before, {}, &info).error_code(), grpc::StatusCode::UNAVAILABLE);
  EXPECT_FALSE(Connect()->Call(OpenRequest(0.0f)).has_value());
  SetEngine();
  grpc::ClientContext after;
  ASSERT_TRUE(stub_->GetInfo(&after, {}, &info).ok());
  EXPECT_EQ(info.incarnation(), 77);
  EXPECT_EQ(info.vocabulary_size(), 50);
  EXPECT_TRUE(ConnectUntilIn()->Call(OpenRequest(0.0f)).has_value());
}

// A pass that fails is the sequence's bad luck while the device still answers; where it does
// not, CUDA gives every later call the same error, and only a new process helps.
TEST_P(TargetServiceTest, ADeviceThatDoesNotAnswerAfterAFailedPassEndsTheWorker) {
  worker::DeviceMemory memory = {.total_bytes = 1000};
  service_.SetEngine(&*engine_, {.is_cuda = true, .memory = [&memory] { return memory; }});
  const std::unique_ptr<Client> client = Connect();
  Generate(*client, 1);
  executor_.set_failing_token(kFailing);
  const auto fail = [&client] {
    EXPECT_EQ(client->Call(NextRequest(19, kFailing))->results(0).error_code(),
              static_cast<int>(absl::StatusCode::kInternal));
  };
  fail();
  EXPECT_TRUE(device_failures_.empty());
  memory = {};
  ASSERT_TRUE(client->Call(NextRequest(19, 1)).has_value());
  EXPECT_TRUE(device_failures_.empty());  // the older failure is over
  fail();
  ASSERT_EQ(device_failures_.size(), 1u);
  EXPECT_EQ(device_failures_[0].message(), "the failing token");
}

TEST_P(TargetServiceTest, StopEndsASessionThatWaits) {
  SetEngine();
  const std::unique_ptr<Client> client = Connect();
  Generate(*client, 2);
  service_.Stop();
  EXPECT_FALSE(client->Call(NextRequest(20, 1)).has_value());
  EXPECT_FALSE(Connect()->Call(OpenRequest(0.0f)).has_value());
}

// Random changes to sound requests, among them every field far out of its range.
TEST_P(TargetServiceTest, SurvivesWhateverAPeerSends) {
  SetEngine();
  std::mt19937 random(GetParam());
  std::unique_ptr<Client> client = Connect();
  const std::string sound[] = {OpenRequest(1.0f).SerializeAsString(),
                               NextRequest(19, 4).SerializeAsString()};
  for (int i = 0; i < 1500; ++i) {
    std::string bytes = sound[random() % 2];
    for (uint32_t k = random() % 6; k > 0; --k) bytes[random() % bytes.size()] = random();
    v1::VerifyRequest request;
    if (!request.ParseFromString(bytes)) continue;
    request.set_pool_epoch(kEpoch);
    ASSERT_TRUE(client->Call(request).has_value()) << "request " << i;
  }
  client.reset();
  EXPECT_EQ(Generate(*ConnectUntilIn(), 10).size(), 10u);
}

TEST_P(TargetServiceTest, BytesThatAreNoMessageEndTheirSessionOnly) {
  SetEngine();
  {
    RingClient client(ring_path());
    ASSERT_TRUE(client.Send("\xff\xff\xff no message"));
    EXPECT_EQ(client.Receive().code(), absl::StatusCode::kUnavailable);
  }
  EXPECT_EQ(Generate(*ConnectUntilIn(), 3).size(), 3u);
}

TEST_P(TargetServiceTest, MessageOverTheLimitEndsItsSessionOnly) {
  SetEngine();
  {
    const std::unique_ptr<Client> client = Connect();
    v1::VerifyRequest request = OpenRequest(0.0f);
    request.mutable_sequences(0)->mutable_token_ids()->Resize(3 << 20, 1 << 20);
    EXPECT_FALSE(client->Call(request).has_value());
  }
  EXPECT_EQ(Generate(*ConnectUntilIn(), 3).size(), 3u);
}

TEST_P(TargetServiceTest, SocketIsForItsOwnerOnly) {
  struct stat info;
  ASSERT_EQ(stat((folder_.path() + "/t").c_str(), &info), 0);
  EXPECT_EQ(info.st_mode & 0777, 0600u);
}

INSTANTIATE_TEST_SUITE_P(Transports, TargetServiceTest, testing::Bool(),
                         [](const auto& info) { return info.param ? "Ring" : "Grpc"; });

}  // namespace
}  // namespace tandem::target
