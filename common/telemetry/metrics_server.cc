#include <prometheus/exposer.h>

#include <exception>
#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/base/address.h"
#include "common/telemetry/metrics.h"

namespace tandem {
namespace {

constexpr int kNumThreads = 2;

absl::StatusOr<HostPort> ParseAddress(const std::string& listen) {
  std::optional<HostPort> address = ParseHostPort(listen);
  if (!address.has_value()) {
    return absl::InvalidArgumentError(
        absl::StrCat("the address of /metrics is '", listen, "', not host:port"));
  }
  if (address->host == "localhost") address->host = "127.0.0.1";
  return *std::move(address);
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
  const absl::StatusOr<HostPort> address = ParseAddress(listen);
  if (!address.ok()) return address.status();
  std::unique_ptr<MetricsServer> server(new MetricsServer());
  try {
    server->state_->exposer = std::make_unique<prometheus::Exposer>(
        absl::StrCat(address->host, ":", address->port), kNumThreads);
  } catch (const std::exception&) {  // whose words are CivetServer's, and tell nothing
    return absl::UnavailableError(
        absl::StrCat("cannot listen on ", listen, " for /metrics: is port ", address->port,
                     " taken? Stop what listens there, or choose another with --metrics-listen"));
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
