#include <prometheus/exposer.h>

#include <exception>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "common/telemetry/metrics.h"

namespace tandem {
namespace {

constexpr int kNumThreads = 2;

struct Address {
  std::string host;
  int port = 0;
};

absl::StatusOr<Address> ParseAddress(const std::string& listen) {
  const size_t colon = listen.rfind(':');
  Address address;
  if (colon == std::string::npos || colon == 0 ||
      !absl::SimpleAtoi(listen.substr(colon + 1), &address.port) || address.port < 0 ||
      address.port > 65535) {
    return absl::InvalidArgumentError(
        absl::StrCat("the address of /metrics is '", listen, "', not host:port"));
  }
  address.host = listen.substr(0, colon);
  if (address.host == "localhost") address.host = "127.0.0.1";
  return address;
}

}  // namespace

struct MetricsServer::State {
  std::unique_ptr<prometheus::Exposer> exposer;
  std::vector<std::shared_ptr<prometheus::Collectable>> collectables;
};

MetricsServer::MetricsServer() : state_(std::make_unique<State>()) {}
MetricsServer::~MetricsServer() = default;

absl::StatusOr<std::unique_ptr<MetricsServer>> MetricsServer::Start(const std::string& listen,
                                                                    const Metrics& metrics) {
  const absl::StatusOr<Address> address = ParseAddress(listen);
  if (!address.ok()) return address.status();
  std::unique_ptr<MetricsServer> server(new MetricsServer());
  try {
    server->state_->exposer = std::make_unique<prometheus::Exposer>(
        absl::StrCat(address->host, ":", address->port), kNumThreads);
  } catch (const std::exception& error) {
    return absl::UnavailableError(
        absl::StrCat("cannot listen on ", listen, " for /metrics (", error.what(),
                     "): is the port taken? Choose another with --metrics-listen"));
  }
  server->state_->collectables = metrics.collectables();
  for (const auto& collectable : server->state_->collectables) {
    server->state_->exposer->RegisterCollectable(collectable);
  }
  const std::vector<int> ports = server->state_->exposer->GetListeningPorts();
  server->address_ =
      absl::StrCat(address->host, ":", ports.empty() ? address->port : ports.front());
  return server;
}

}  // namespace tandem
