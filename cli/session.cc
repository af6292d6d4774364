#include "cli/session.h"

#include <atomic>
#include <cerrno>
#include <csignal>
#include <cstdio>
#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "cli/exit_codes.h"
#include "common/base/status_macros.h"
#include "common/rpc/status_convert.h"
#include "common/tokenizer/utf8.h"

namespace tandem {
namespace {

namespace v1 = gateway::v1;

constexpr char kDefaultEndpoint[] = "127.0.0.1:50051";
constexpr int64_t kSurelyTakenBytes = 256 << 10;

std::atomic<bool> interrupted = false;

void OnInterrupt(int) { interrupted = true; }

// What is not UTF-8 is no text of a message: Protobuf would say so, and gRPC nothing.
absl::Status CheckTexts(const v1::GenerateRequest& request) {
  const auto check = [](const char* name, const std::string& text) {
    if (IsValidUtf8(text)) return absl::OkStatus();
    return absl::InvalidArgumentError(
        absl::StrCat(name, " is not UTF-8: convert it, as with `iconv -f latin1 -t utf-8`"));
  };
  RETURN_IF_ERROR(check("the prompt", request.prompt()));
  for (const v1::ChatMessage& message : request.chat().messages()) {
    RETURN_IF_ERROR(check("the message", message.content()));
  }
  for (const std::string& stop : request.stopping().stop()) {
    RETURN_IF_ERROR(check("--stop", stop));
  }
  return absl::OkStatus();
}

// gRPC ends a call whose request is over the server's limit without the limit's name.
absl::Status CheckSize(GatewayClient& client, const v1::GenerateRequest& request) {
  const auto num_bytes = static_cast<int64_t>(request.ByteSizeLong());
  if (num_bytes <= kSurelyTakenBytes) return absl::OkStatus();
  ASSIGN_OR_RETURN(const v1::GetModelResponse model, client.GetModel(absl::Seconds(10)));
  if (num_bytes <= model.limits().max_request_bytes()) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat("the request has ", num_bytes, " bytes, the server takes at most ",
                   model.limits().max_request_bytes(), ": shorten the prompt"));
}

// The flag of a server of our own that was given; none: nullptr.
const char* OwnServerFlag(const ServeOptions& serve) {
  if (!serve.target.empty()) return "--target";
  if (!serve.draft.empty()) return "--draft";
  if (serve.threads > 0) return "--threads";
  return serve.target_kv != ServeOptions().target_kv ? "--kv" : nullptr;
}

// Flags that would be of no effect beside others.
absl::Status CheckFlags(const RequestOptions& options) {
  const char* own = OwnServerFlag(options.serve);
  if (!options.endpoint.empty() && own != nullptr) {
    return absl::InvalidArgumentError(absl::StrCat(
        own, " is for a server of this command's own, --endpoint names another: give one of them"));
  }
  if (options.speculation == "off" && options.draft_length > 0) {
    return absl::InvalidArgumentError(absl::StrCat("--draft-length ", options.draft_length,
                                                   " is of no use with --speculation off"));
  }
  return absl::OkStatus();
}

// What the server says carries a reason; without one it is gRPC that lost the connection.
absl::Status TellWhatToDo(const absl::Status& status) {
  if (!absl::IsUnavailable(status) || !rpc::DetailsOf(status).reason.empty()) return status;
  return absl::UnavailableError(absl::StrCat(
      "the server is gone (", status.message(),
      "): it was stopped or killed, and its log says why; once it is ready again, ask again"));
}

double Seconds(const google::protobuf::Duration& duration) {
  return static_cast<double>(duration.seconds()) + duration.nanos() * 1e-9;
}

}  // namespace

absl::StatusOr<Session> OpenSession(const RequestOptions& options, int* exit_code) {
  if (absl::Status status = CheckFlags(options); !status.ok()) {
    *exit_code = kExitUsage;
    return status;
  }
  Session session;
  const bool is_named = !options.endpoint.empty();
  if (is_named || options.serve.target.empty()) {
    auto client =
        GatewayClient::Connect(is_named ? options.endpoint : kDefaultEndpoint, options.security,
                               is_named ? absl::Seconds(5) : absl::Milliseconds(150));
    if (client.ok()) {
      if (const char* own = OwnServerFlag(options.serve); own != nullptr) {
        std::fprintf(stderr, "note   a server answers at %s: %s is of no effect\n",
                     kDefaultEndpoint, own);
      }
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
  RETURN_IF_ERROR(CheckTexts(request));
  RETURN_IF_ERROR(CheckSize(client, request));
  interrupted = false;
  const auto previous = std::signal(SIGINT, OnInterrupt);
  v1::Finished finished;
  int write_error = 0;
  const absl::Status status = client.Generate(request, [&](const v1::GenerateResponse& response) {
    if (response.has_delta()) {
      const std::string& piece = response.delta().text();
      text->append(piece);
      std::fwrite(piece.data(), 1, piece.size(), stdout);
      if (std::fflush(stdout) != 0 || std::ferror(stdout) != 0) write_error = errno;
    } else if (response.has_finished()) {
      finished = response.finished();
    }
    return !interrupted && std::ferror(stdout) == 0;
  });
  std::signal(SIGINT, previous);
  if (std::ferror(stdout) != 0) {
    return absl::DataLossError(
        absl::StrCat("standard output cannot be written: ", std::strerror(write_error)));
  }
  if (interrupted) return absl::CancelledError("stopped");
  if (!status.ok()) return TellWhatToDo(status);
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
  // Without drafts this is decoding plainly: what the estimate differs by is noise.
  const double plain = Seconds(finished.timings().estimated_plain_decode());
  if (speculation.draft_token_count() > 0 && plain > 0 && decode > 0) {
    absl::StrAppendFormat(&line, " · %.2fx plain", plain / decode);
  }
  return line;
}

}  // namespace tandem
