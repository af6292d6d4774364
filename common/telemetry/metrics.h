// Counts, and the page that Prometheus reads.
#pragma once

#include <functional>
#include <initializer_list>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "common/telemetry/metric_names.h"

namespace prometheus {
class Collectable;
}

namespace tandem {

// The values of a metric's labels, in the order of its spec.
using LabelValues = std::initializer_list<std::string_view>;

// All metrics of kMetrics, with every label set that is known from the start at 0.
// Thread-safe.
class Metrics {
 public:
  Metrics();
  ~Metrics();
  Metrics(const Metrics&) = delete;
  Metrics& operator=(const Metrics&) = delete;

  // Requires a counter, and `by` not negative.
  void Add(Metric metric, LabelValues labels = {}, double by = 1.0);
  // Requires a gauge.
  void Set(Metric metric, LabelValues labels, double value);
  void Set(Metric metric, double value) { Set(metric, {}, value); }
  // The same, as a difference.
  void Change(Metric metric, double by);
  // The same for a gauge that has this series and no other: drops the rest.
  void SetOnly(Metric metric, LabelValues labels, double value);
  // Sets an `_info` gauge to 1, and drops its series with the same first label: what they
  // told is over.
  void SetInfo(Metric metric, LabelValues labels);
  // Requires a histogram.
  void Observe(Metric metric, LabelValues labels, double value);
  void Observe(Metric metric, double value) { Observe(metric, {}, value); }

  // From here on every series has the label `model`.
  void SetModel(std::string_view name);
  // `update` is called before each look at the metrics, for figures that are read and not
  // counted. Requires that what it uses outlives the last look. Before the first look.
  void BeforeLook(std::function<void()> update);

  // In the text format of Prometheus.
  std::string Render() const;
  // What a MetricsServer shows: the above and the process's own figures.
  std::vector<std::shared_ptr<prometheus::Collectable>> collectables() const;

 private:
  struct State;
  std::shared_ptr<State> state_;
};

// Serves /metrics until destroyed.
class MetricsServer {
 public:
  // `listen` is "host:port"; port 0 takes a free one. UNAVAILABLE naming the address when it
  // is taken, INVALID_ARGUMENT when it is none.
  static absl::StatusOr<std::unique_ptr<MetricsServer>> Start(const std::string& listen,
                                                              const Metrics& metrics);
  ~MetricsServer();

  // "127.0.0.1:9090", with the port it got.
  const std::string& address() const { return address_; }

 private:
  struct State;
  MetricsServer();
  std::unique_ptr<State> state_;
  std::string address_;
};

}  // namespace tandem
