#include "cli/session.h"

#include <atomic>
#include <csignal>
#include <cstdio>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "cli/exit_codes.h"

namespace tandem {
namespace {

namespace v1 = gateway::v1;

constexpr char kDefaultEndpoint[] = "127.0.0.1:50051";

std::atomic<bool> interrupted = false;

void OnInterrupt(int) { interrupted = true; }

double Seconds(const google::protobuf::Duration& duration) {
  return static_cast<double>(duration.seconds()) + duration.nanos() * 1e-9;
}

}  // namespace

absl::StatusOr<Session> OpenSession(const RequestOptions& options, int* exit_code) {
  Session session;
  const bool is_named = !options.endpoint.empty();
  if (is_named || options.serve.target.empty()) {
    auto client =
        GatewayClient::Connect(is_named ? options.endpoint : kDefaultEndpoint, options.security,
                               is_named ? absl::Seconds(5) : absl::Milliseconds(150));
    if (client.ok()) {
      session.client = *std::move(client);
      return session;
    }
    if (is_named) {
      *exit_code = absl::IsUnavailable(client.status()) ? kExitPort : kExitUsage;
      return client.status();
    }
  }
  absl::StatusOr<std::unique_ptr<LocalServer>> server =
      LocalServer::Start(options.serve, exit_code);
  if (!server.ok()) return server.status();
  session.server = *std::move(server);
  *exit_code = kExitPort;
  auto client = GatewayClient::Connect(session.server->endpoint(), {}, absl::Seconds(10));
  if (!client.ok()) return client.status();
  session.client = *std::move(client);
  return session;
}

absl::StatusOr<v1::Finished> StreamAnswer(GatewayClient& client, const v1::GenerateRequest& request,
                                          std::string* text) {
  interrupted = false;
  const auto previous = std::signal(SIGINT, OnInterrupt);
  v1::Finished finished;
  const absl::Status status = client.Generate(request, [&](const v1::GenerateResponse& response) {
    if (response.has_delta()) {
      const std::string& piece = response.delta().text();
      text->append(piece);
      std::fwrite(piece.data(), 1, piece.size(), stdout);
      std::fflush(stdout);
    } else if (response.has_finished()) {
      finished = response.finished();
    }
    return !interrupted && std::ferror(stdout) == 0;
  });
  std::signal(SIGINT, previous);
  if (!status.ok()) return status;
  return finished;
}

std::string ClosingLine(const v1::Finished& finished) {
  const int tokens = finished.usage().output_tokens();
  const double decode = Seconds(finished.timings().decode());
  std::string line = absl::StrFormat("%d tokens", tokens);
  if (tokens > 1 && decode > 0)
    absl::StrAppendFormat(&line, " · %.1f tok/s", (tokens - 1) / decode);
  absl::StrAppendFormat(&line, " · first token %.0f ms",
                        Seconds(finished.timings().time_to_first_token()) * 1e3);
  const v1::SpeculationReport& speculation = finished.speculation();
  if (speculation.draft_token_count() > 0) {
    absl::StrAppendFormat(&line, " · accepted %.0f %% (%.1f tokens a step)",
                          speculation.acceptance_rate() * 100, speculation.acceptance_length());
  } else {
    absl::StrAppend(&line, " · no drafts");
  }
  const double plain = Seconds(finished.timings().estimated_plain_decode());
  if (plain > 0 && decode > 0) absl::StrAppendFormat(&line, " · %.2fx plain", plain / decode);
  return line;
}

}  // namespace tandem
