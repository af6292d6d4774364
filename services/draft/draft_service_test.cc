#include "services/draft/draft_service.h"

#include <optional>
#include <random>
#include <string>

#include "common/rpc/worker/worker_server.h"
#include "common/telemetry/log.h"
#include "common/worker/ring_server.h"
#include "services/draft/draft_engine_fixture.h"

namespace tandem::draft {
namespace {

constexpr absl::Duration kLong = absl::Seconds(20);

class DraftServiceTest : public testing::Test {
 protected:
  DraftServiceTest() {
    const std::string socket = bench_.path() + ".grpc";
    server_ = worker::WorkerServer::Start("unix:" + socket, &service_).value();
    stub_ = v1::DraftService::NewStub(
        grpc::CreateChannel("unix:" + socket, grpc::InsecureChannelCredentials()));
    ring_server_ = worker::RingServer::Start(ring_path(), -1, [this](auto ring) {
                     service_.ServeRing(std::move(ring));
                   }).value();
    for (int32_t page = 0; page < kNumPages; ++page) {
      bench_.pool().control().SetGeneration(PageId(page), 1);
    }
  }
  ~DraftServiceTest() override {
    service_.Stop();
    ring_server_.reset();
    server_.reset();
    unlink((ring_path() + ".lock").c_str());
    unlink((bench_.path() + ".grpc").c_str());
  }

  std::string ring_path() const { return bench_.path() + ".ring"; }
  void SetEngine() { service_.SetEngine(&bench_.engine(), {.model_name = "fake"}); }
  absl::StatusOr<int32_t> Attach(int64_t epoch) {
    grpc::ClientContext context;
    v1::AttachPoolRequest request;
    request.set_pool_socket_path(bench_.path());
    request.set_pool_epoch(epoch);
    v1::AttachPoolResponse response;
    const grpc::Status status = stub_->AttachPool(&context, request, &response);
    if (status.ok()) return response.positions_per_page();
    return absl::Status(static_cast<absl::StatusCode>(status.error_code()), status.error_message());
  }
  static v1::ProposeRequest Request(int32_t num_drafts) {
    v1::ProposeRequest request;
    request.set_step_id(8);
    request.set_pool_epoch(kEpoch);
    v1::OpenSequence* open = request.add_open();
    open->set_sequence_id(5);
    open->mutable_sampling()->set_temperature(0.7f);
    open->mutable_sampling()->set_repetition_penalty(1.0f);
    open->mutable_sampling()->set_top_p(1.0f);
    v1::SequenceStep* step = request.add_sequences();
    step->set_sequence_id(5);
    for (int32_t id = 1; id < 20; ++id) step->add_token_ids(id);
    for (int32_t page = 0; page < 4; ++page) {
      step->add_page_ids(page);
      step->add_page_generations(1);
    }
    step->set_draft_length(num_drafts);
    step->set_draft_probs_slot(-1);
    return request;
  }
  // The answer over a session of its own.
  std::optional<v1::ProposeResponse> CallGrpc(const v1::ProposeRequest& request) {
    grpc::ClientContext context;
    const auto stream = stub_->Propose(&context);
    v1::ProposeResponse response;
    const bool is_answered = stream->Write(request) && stream->Read(&response);
    stream->WritesDone();
    stream->Finish();
    if (!is_answered) return std::nullopt;
    return response;
  }
  std::optional<v1::ProposeResponse> CallRing(const v1::ProposeRequest& request) {
    auto ring = ConnectStepRing(ring_path(), kLong).value();
    const std::string bytes = request.SerializeAsString();
    v1::ProposeResponse response;
    if (!ring->Send({reinterpret_cast<const uint8_t*>(bytes.data()), bytes.size()}, kLong).ok()) {
      return std::nullopt;
    }
    const auto answer = ring->Receive(kLong);
    if (!answer.ok() || !response.ParseFromArray(answer->data(), answer->size())) {
      return std::nullopt;
    }
    return response;
  }

  Bench bench_;
  DraftService service_;
  std::unique_ptr<worker::WorkerServer> server_;
  std::unique_ptr<v1::DraftService::Stub> stub_;
  std::unique_ptr<worker::RingServer> ring_server_;
};

TEST_F(DraftServiceTest, ProposesTheSameOverEitherTransport) {
  SetEngine();
  const auto first = CallGrpc(Request(6));
  ASSERT_TRUE(first.has_value());
  ASSERT_EQ(first->results_size(), 1);
  EXPECT_EQ(first->step_id(), 8);
  EXPECT_EQ(first->results(0).draft_token_ids_size(), 6);
  EXPECT_EQ(first->results(0).draft_probs_size(), 6);
  // The session before may still be on its way out.
  std::optional<v1::ProposeResponse> second;
  while (!second.has_value()) second = CallRing(Request(6));
  EXPECT_EQ(second->results(0).SerializeAsString(), first->results(0).SerializeAsString());
}

TEST_F(DraftServiceTest, AttachesAndTellsWhyNot) {
  EXPECT_EQ(Attach(kEpoch).status().code(), absl::StatusCode::kUnavailable);
  SetEngine();
  EXPECT_EQ(Attach(kEpoch).value(), kPagePositions);
  EXPECT_EQ(Attach(kEpoch + 1).status().code(), absl::StatusCode::kAborted);
  const auto response = CallGrpc(Request(2));
  ASSERT_TRUE(response.has_value());
  EXPECT_EQ(response->error_code(), static_cast<int>(absl::StatusCode::kFailedPrecondition));
  EXPECT_EQ(Attach(kEpoch).value(), kPagePositions);
}

// A pool that could never be attached was logged at each try, four times a second without end.
TEST_F(DraftServiceTest, ACauseThatStaysTheSameIsLoggedOnce) {
  ASSERT_TRUE(SetUpLogging({.component = "draft", .level = "warn"}).ok());
  const auto num_warnings = [] { return NumLogMessages()[2]; };
  ASSERT_EQ(kLogLevels[2], "warn");
  SetEngine();
  for (int i = 0; i < 3; ++i) EXPECT_FALSE(Attach(kEpoch + 1).ok());
  EXPECT_EQ(num_warnings(), 1);
  EXPECT_TRUE(Attach(kEpoch).ok());
  EXPECT_FALSE(Attach(kEpoch + 1).ok());
  EXPECT_EQ(num_warnings(), 2);
}

TEST_F(DraftServiceTest, SurvivesWhateverAPeerSends) {
  SetEngine();
  std::mt19937 random(3);
  const std::string sound = Request(4).SerializeAsString();
  grpc::ClientContext context;
  const auto stream = stub_->Propose(&context);
  for (int i = 0; i < 1500; ++i) {
    std::string bytes = sound;
    for (uint32_t k = random() % 6; k > 0; --k) bytes[random() % bytes.size()] = random();
    v1::ProposeRequest request;
    if (!request.ParseFromString(bytes)) continue;
    request.set_pool_epoch(kEpoch);
    v1::ProposeResponse response;
    ASSERT_TRUE(stream->Write(request) && stream->Read(&response)) << "request " << i;
  }
  v1::ProposeResponse response;
  ASSERT_TRUE(stream->Write(Request(5)) && stream->Read(&response));
  EXPECT_EQ(response.results(0).draft_token_ids_size(), 5);
  stream->WritesDone();
  stream->Finish();
}

TEST_F(DraftServiceTest, InfoIsThereOnceLoaded) {
  grpc::ClientContext before;
  v1::GetInfoResponse info;
  EXPECT_EQ(stub_->GetInfo(&before, {}, &info).error_code(), grpc::StatusCode::UNAVAILABLE);
  SetEngine();
  grpc::ClientContext after;
  ASSERT_TRUE(stub_->GetInfo(&after, {}, &info).ok());
  EXPECT_EQ(info.model_name(), "fake");
}

}  // namespace
}  // namespace tandem::draft
