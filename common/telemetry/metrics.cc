#include "common/telemetry/metrics.h"

#include <prometheus/counter.h>
#include <prometheus/family.h>
#include <prometheus/gauge.h>
#include <prometheus/histogram.h>
#include <prometheus/registry.h>
#include <prometheus/text_serializer.h>

#include <algorithm>
#include <mutex>
#include <utility>

#include "absl/container/flat_hash_map.h"
#include "absl/types/span.h"
#include "common/base/check.h"
#include "common/telemetry/process_metrics.h"

namespace tandem {
namespace {

using Bounds = prometheus::Histogram::BucketBoundaries;

Bounds BoundsOf(Buckets buckets) {
  switch (buckets) {
    case Buckets::kNone:
      return {};
    case Buckets::kLatency:
      return {0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1,  0.25, 0.5,
              0.75,  1.0,   2.5,  5.0,  7.5,  10.0, 20.0, 40.0, 80.0, 160.0};
    case Buckets::kTokenLatency:
      return {0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.075, 0.1,
              0.15,  0.2,    0.3,   0.4,  0.5,   0.75, 1.0,   2.5};
    case Buckets::kStep:
      return {0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025,
              0.05,   0.1,     0.25,   0.5,   1.0,    2.5,   5.0};
    case Buckets::kTokens:
      return {1, 4, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384, 32768};
    case Buckets::kSequences:
      return {1, 2, 4, 8, 16, 32, 64};
  }
  return {};
}

std::vector<std::string_view> LabelNames(const MetricSpec& spec) {
  std::vector<std::string_view> names;
  for (const MetricLabel& label : spec.labels) {
    if (label.name.empty()) break;
    names.push_back(label.name);
  }
  return names;
}

std::string JoinValues(absl::Span<const std::string_view> values) {
  std::string joined;
  for (const std::string_view value : values) joined.append(value).push_back('\n');
  return joined;
}

// One of the three; the others are empty.
struct Series {
  prometheus::Counter* counter = nullptr;
  prometheus::Gauge* gauge = nullptr;
  prometheus::Histogram* histogram = nullptr;

  bool exists() const { return counter || gauge || histogram; }
};

struct Family {
  prometheus::Family<prometheus::Counter>* counter = nullptr;
  prometheus::Family<prometheus::Gauge>* gauge = nullptr;
  prometheus::Family<prometheus::Histogram>* histogram = nullptr;
  absl::flat_hash_map<std::string, Series> series;  // by label values, joined
  // Of a metric without labels its only series, from the start: no lock, as a step of a large
  // batch counts a hundred times.
  Series only;
};

}  // namespace

// All that is registered, as prometheus-cpp looks at it.
struct Metrics::State final : public prometheus::Collectable {
  std::vector<prometheus::MetricFamily> Collect() const override;
  void Register(const MetricSpec& spec, Family* family);
  void MakeKnown(const MetricSpec& spec, std::vector<std::string_view> values, Metric metric);
  Series Get(Metric metric, absl::Span<const std::string_view> values);
  // The series of a gauge whose joined values begin so, but for `kept`.
  void DropOthers(Metric metric, const std::string& kept, const std::string& prefix);

  std::shared_ptr<prometheus::Registry> registry = std::make_shared<prometheus::Registry>();
  std::shared_ptr<ProcessMetrics> process = std::make_shared<ProcessMetrics>();
  mutable std::mutex mutex;
  std::array<Family, static_cast<size_t>(Metric::kCount)> families;
  std::string model;                           // guarded by `mutex`
  std::vector<std::function<void()>> updates;  // not changed after the first look
  mutable std::mutex look_mutex;               // one look at a time
};

std::vector<prometheus::MetricFamily> Metrics::State::Collect() const {
  const std::lock_guard look_lock(look_mutex);
  for (const auto& update : updates) update();
  std::vector<prometheus::MetricFamily> families = registry->Collect();
  const std::lock_guard lock(mutex);
  if (model.empty()) return families;
  for (prometheus::MetricFamily& family : families) {
    for (prometheus::ClientMetric& metric : family.metric) {
      metric.label.push_back({"model", model});
    }
  }
  return families;
}

void Metrics::State::Register(const MetricSpec& spec, Family* family) {
  const std::string name(spec.name);
  const std::string help(spec.help);
  switch (spec.type) {
    case MetricType::kCounter:
      family->counter = &prometheus::BuildCounter().Name(name).Help(help).Register(*registry);
      break;
    case MetricType::kGauge:
      family->gauge = &prometheus::BuildGauge().Name(name).Help(help).Register(*registry);
      break;
    case MetricType::kHistogram:
      family->histogram = &prometheus::BuildHistogram().Name(name).Help(help).Register(*registry);
      break;
  }
}

// Makes the series of all known label values, one label after the other.
void Metrics::State::MakeKnown(const MetricSpec& spec, std::vector<std::string_view> values,
                               Metric metric) {
  if (values.size() == LabelNames(spec).size()) {
    const Series series = Get(metric, values);
    if (values.empty()) families[static_cast<size_t>(metric)].only = series;
    return;
  }
  std::string_view known = spec.labels[values.size()].values;
  while (!known.empty()) {
    const std::string_view value = known.substr(0, known.find('|'));
    known.remove_prefix(std::min(known.size(), value.size() + 1));
    values.push_back(value);
    MakeKnown(spec, values, metric);
    values.pop_back();
  }
}

Series Metrics::State::Get(Metric metric, absl::Span<const std::string_view> values) {
  const MetricSpec& spec = SpecOf(metric);
  Family& family = families[static_cast<size_t>(metric)];
  if (values.empty() && family.only.exists()) return family.only;
  const std::lock_guard lock(mutex);
  Series& series = family.series[JoinValues(values)];
  if (series.exists()) return series;
  const std::vector<std::string_view> names = LabelNames(spec);
  TANDEM_CHECK(names.size() == values.size());
  prometheus::Labels labels;
  for (size_t i = 0; i < names.size(); ++i) {
    labels.emplace(std::string(names[i]), std::string(values[i]));
  }
  if (family.counter) series.counter = &family.counter->Add(labels);
  if (family.gauge) series.gauge = &family.gauge->Add(labels);
  if (family.histogram) series.histogram = &family.histogram->Add(labels, BoundsOf(spec.buckets));
  return series;
}

void Metrics::State::DropOthers(Metric metric, const std::string& kept, const std::string& prefix) {
  Family& family = families[static_cast<size_t>(metric)];
  const std::lock_guard lock(mutex);
  for (auto i = family.series.begin(); i != family.series.end();) {
    const auto old = i++;
    if (old->first == kept || old->first.rfind(prefix, 0) != 0) continue;
    family.gauge->Remove(old->second.gauge);
    family.series.erase(old);
  }
}

Metrics::Metrics() : state_(std::make_shared<State>()) {
  for (size_t i = 0; i < kMetrics.size(); ++i) {
    state_->Register(kMetrics[i], &state_->families[i]);
    state_->MakeKnown(kMetrics[i], {}, static_cast<Metric>(i));
  }
}

Metrics::~Metrics() = default;

void Metrics::Add(Metric metric, LabelValues labels, double by) {
  TANDEM_CHECK(SpecOf(metric).type == MetricType::kCounter);
  state_->Get(metric, labels).counter->Increment(by);
}

void Metrics::Set(Metric metric, LabelValues labels, double value) {
  TANDEM_CHECK(SpecOf(metric).type == MetricType::kGauge);
  state_->Get(metric, labels).gauge->Set(value);
}

void Metrics::Change(Metric metric, double by) {
  TANDEM_CHECK(SpecOf(metric).type == MetricType::kGauge);
  state_->Get(metric, {}).gauge->Increment(by);
}

void Metrics::SetOnly(Metric metric, LabelValues labels, double value) {
  TANDEM_CHECK(SpecOf(metric).type == MetricType::kGauge);
  state_->DropOthers(metric, JoinValues(labels), "");
  Set(metric, labels, value);
}

void Metrics::SetInfo(Metric metric, LabelValues labels) {
  TANDEM_CHECK(SpecOf(metric).type == MetricType::kGauge && labels.size() > 0);
  state_->DropOthers(metric, JoinValues(labels), JoinValues({*labels.begin()}));
  Set(metric, labels, 1);
}

void Metrics::Observe(Metric metric, LabelValues labels, double value) {
  TANDEM_CHECK(SpecOf(metric).type == MetricType::kHistogram);
  state_->Get(metric, labels).histogram->Observe(value);
}

void Metrics::SetModel(std::string_view name) {
  const std::lock_guard lock(state_->mutex);
  state_->model = name;
}

void Metrics::BeforeLook(std::function<void()> update) {
  state_->updates.push_back(std::move(update));
}

std::string Metrics::Render() const {
  std::vector<prometheus::MetricFamily> families = state_->Collect();
  for (prometheus::MetricFamily& family : state_->process->Collect()) {
    families.push_back(std::move(family));
  }
  return prometheus::TextSerializer().Serialize(families);
}

std::vector<std::shared_ptr<prometheus::Collectable>> Metrics::collectables() const {
  return {state_, state_->process};
}

}  // namespace tandem
