// What a step costs beside the model: the round trip of an 8-token verify through gRPC
// and through the ring, to a worker in another process whose model costs nothing.
//
// Measured 2026-11 on two cores that others were using too, three runs: gRPC p50 55 to
// 77 us, ring 52 to 57 us where the peer had gone to sleep, 2.4 us where it still spun.
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <string>
#include <vector>

#include "common/ipc/pool_exchange.h"
#include "services/target/target_service_clients.h"

namespace tandem::target {
namespace {

constexpr int kWarmup = 500;
constexpr int kSteps = 5000;

v1::VerifyRequest Step(int64_t epoch, bool opens) {
  v1::VerifyRequest request;
  request.set_pool_epoch(epoch);
  if (opens) {
    v1::Sampling* sampling = request.add_open()->mutable_sampling();
    request.mutable_open(0)->set_sequence_id(1);
    sampling->set_repetition_penalty(1.0f);
    sampling->set_top_p(1.0f);
  }
  v1::SequenceStep* step = request.add_sequences();
  step->set_sequence_id(1);
  for (int32_t id = 1; id <= 8; ++id) step->add_token_ids(id);
  if (opens) {
    step->add_page_ids(0);
    step->add_page_generations(0);
  }
  step->set_draft_probs_slot(-1);
  return request;
}

int Measure(const char* name, Client& client, int64_t epoch) {
  std::vector<double> micros;
  client.Call(Step(epoch, /*opens=*/true));
  const v1::VerifyRequest request = Step(epoch, /*opens=*/false);
  for (int i = 0; i < kWarmup + kSteps; ++i) {
    const auto start = std::chrono::steady_clock::now();
    const auto response = client.Call(request);
    const std::chrono::duration<double, std::micro> took = std::chrono::steady_clock::now() - start;
    if (!response.has_value() || response->results(0).error_code() != 0) return 1;
    if (i >= kWarmup) micros.push_back(took.count());
  }
  std::sort(micros.begin(), micros.end());
  std::printf("%-5s p10 %6.1f us  p50 %6.1f us  p99 %6.1f us\n", name, micros[kSteps / 10],
              micros[kSteps / 2], micros[kSteps * 99 / 100]);
  return 0;
}

// `socket` is that of a running tandem-fake-target.
int Run(const std::string& socket) {
  const auto stub = v1::TargetService::NewStub(
      grpc::CreateChannel("unix:" + socket, grpc::InsecureChannelCredentials()));
  grpc::ClientContext context;
  v1::GetInfoResponse info;
  if (!stub->GetInfo(&context, {}, &info).ok()) return 5;
  {
    GrpcClient client(stub.get());
    if (Measure("gRPC", client, info.pool_epoch()) != 0) return 1;
  }
  RingClient client(info.ring_name());
  return Measure("ring", client, info.pool_epoch());
}

}  // namespace
}  // namespace tandem::target

int main(int argc, char** argv) {
  if (argc != 2) {
    std::fprintf(stderr, "usage: %s SOCKET_OF_TANDEM_FAKE_TARGET\n", argv[0]);
    return 2;
  }
  return tandem::target::Run(argv[1]);
}
