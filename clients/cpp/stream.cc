// Streams an answer: an example of a client in C++.
//
//   tandem-client-example [TARGET] [PROMPT]
#include <grpcpp/grpcpp.h>

#include <cstdio>
#include <string>

#include "tandem/gateway/v1/gateway.grpc.pb.h"

namespace {

namespace v1 = tandem::gateway::v1;

// As clients/python/tandem_client/service_config.json: all addresses in turn, and another try
// while no message has come.
constexpr char kServiceConfig[] = R"({
  "loadBalancingConfig": [{"round_robin": {}}],
  "methodConfig": [
    {
      "name": [{"service": "tandem.gateway.v1.GatewayService"}],
      "waitForReady": false,
      "retryPolicy": {
        "maxAttempts": 4,
        "initialBackoff": "0.2s",
        "maxBackoff": "2s",
        "backoffMultiplier": 2,
        "retryableStatusCodes": ["UNAVAILABLE"]
      }
    }
  ]
})";

std::shared_ptr<grpc::Channel> Connect(const std::string& target) {
  grpc::ChannelArguments arguments;
  arguments.SetServiceConfigJSON(kServiceConfig);
  return grpc::CreateCustomChannel(target, grpc::InsecureChannelCredentials(), arguments);
}

}  // namespace

int main(int argc, char** argv) {
  const std::string target = argc > 1 ? argv[1] : "localhost:50051";
  v1::GenerateRequest request;
  v1::ChatMessage* message = request.mutable_chat()->add_messages();
  message->set_role("user");
  message->set_content(argc > 2 ? argv[2] : "Why is the sky blue?");
  request.mutable_stopping()->set_max_tokens(64);

  const auto stub = v1::GatewayService::NewStub(Connect(target));
  grpc::ClientContext context;
  const auto stream = stub->Generate(&context, request);
  v1::GenerateResponse response;
  while (stream->Read(&response)) {
    if (response.has_delta()) std::fputs(response.delta().text().c_str(), stdout);
    if (response.has_finished()) {
      std::fprintf(stderr, "\n%d tokens\n", response.finished().usage().output_tokens());
    }
  }
  const grpc::Status status = stream->Finish();
  if (status.ok()) return 0;
  const bool is_away = status.error_code() == grpc::StatusCode::UNAVAILABLE;
  std::fprintf(stderr, "%s: %s\n", is_away ? "UNAVAILABLE" : "failed",
               status.error_message().c_str());
  return 1;
}
