#include "cli/load_report.h"

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>
#include <numeric>

#include "absl/strings/str_format.h"

namespace tandem {
namespace {

double Seconds(absl::Duration duration) { return absl::ToDoubleSeconds(duration); }

// Of the tokens after the first; 0 when there are none.
double TimePerOutputToken(const RequestRecord& record) {
  if (record.output_tokens < 2) return 0.0;
  return Seconds(record.last_token - record.first_token) / (record.output_tokens - 1);
}

bool IsGood(const RequestRecord& record, const ServiceLevel& level) {
  const auto meets = [](double seconds, absl::Duration limit) {
    return limit == absl::ZeroDuration() || seconds <= Seconds(limit);
  };
  return meets(Seconds(record.first_token - record.sent), level.time_to_first_token) &&
         meets(TimePerOutputToken(record), level.time_per_output_token);
}

nlohmann::json ToJson(const Percentiles& p) {
  return {{"count", p.count}, {"mean", p.mean}, {"p50", p.p50}, {"p90", p.p90},
          {"p95", p.p95},     {"p99", p.p99},   {"max", p.max}};
}

nlohmann::json ToJson(const RequestRecord& record) {
  nlohmann::json json = {{"sent_s", Seconds(record.sent)},
                         {"end_s", Seconds(record.end)},
                         {"code", absl::StatusCodeToString(record.status.code())},
                         {"prompt_tokens", record.prompt_tokens},
                         {"cached_tokens", record.cached_tokens},
                         {"output_tokens", record.output_tokens}};
  if (record.status.ok()) {
    json["ttft_s"] = Seconds(record.first_token - record.sent);
    json["tpot_s"] = TimePerOutputToken(record);
    json["longest_gap_s"] =
        record.gaps_s.empty() ? 0.0 : *std::max_element(record.gaps_s.begin(), record.gaps_s.end());
  }
  return json;
}

}  // namespace

Percentiles PercentilesOf(std::vector<double> values) {
  Percentiles result;
  if (values.empty()) return result;
  std::sort(values.begin(), values.end());
  const auto at = [&](double share) {
    const auto rank = static_cast<int64_t>(std::ceil(share * static_cast<double>(values.size())));
    return values[std::max<int64_t>(rank, 1) - 1];
  };
  result = {.p50 = at(0.5), .p90 = at(0.9), .p95 = at(0.95), .p99 = at(0.99), .max = values.back()};
  result.count = static_cast<int64_t>(values.size());
  result.mean = std::accumulate(values.begin(), values.end(), 0.0) / result.count;
  return result;
}

LoadReport MakeLoadReport(const std::vector<RequestRecord>& records, const ServiceLevel& level) {
  LoadReport report;
  std::vector<double> first, per_token, gaps, total, rejection;
  absl::Duration start = absl::InfiniteDuration();
  absl::Duration end = absl::ZeroDuration();
  for (const RequestRecord& record : records) {
    start = std::min(start, record.sent);
    end = std::max(end, record.end);
    if (!record.status.ok()) {
      const bool is_rejected = absl::IsResourceExhausted(record.status);
      ++(is_rejected ? report.num_rejected : report.num_failed);
      if (is_rejected) rejection.push_back(Seconds(record.end - record.sent));
      continue;
    }
    ++report.num_ok;
    report.num_good += IsGood(record, level) ? 1 : 0;
    report.prompt_tokens += record.prompt_tokens;
    report.cached_tokens += record.cached_tokens;
    report.output_tokens += record.output_tokens;
    report.draft_tokens += record.draft_tokens;
    report.accepted_tokens += record.accepted_tokens;
    report.steps += record.steps;
    first.push_back(Seconds(record.first_token - record.sent));
    if (record.output_tokens > 1) per_token.push_back(TimePerOutputToken(record));
    gaps.insert(gaps.end(), record.gaps_s.begin(), record.gaps_s.end());
    total.push_back(Seconds(record.end - record.sent));
  }
  if (!records.empty()) report.seconds = Seconds(end - start);
  report.time_to_first_token = PercentilesOf(std::move(first));
  report.time_per_output_token = PercentilesOf(std::move(per_token));
  report.inter_token_latency = PercentilesOf(std::move(gaps));
  report.total = PercentilesOf(std::move(total));
  report.rejection = PercentilesOf(std::move(rejection));
  return report;
}

std::string ToJson(const LoadReport& report, const std::vector<RequestRecord>& records,
                   const std::string& settings) {
  const double seconds = std::max(report.seconds, 1e-9);
  nlohmann::json json = {
      {"settings", nlohmann::json::parse(settings)},
      {"ok", report.num_ok},
      {"rejected", report.num_rejected},
      {"failed", report.num_failed},
      {"seconds", report.seconds},
      {"prompt_tokens", report.prompt_tokens},
      {"cached_tokens", report.cached_tokens},
      {"output_tokens", report.output_tokens},
      {"output_tokens_per_second", report.output_tokens / seconds},
      {"requests_per_second", report.num_ok / seconds},
      {"good_requests_per_second", report.num_good / seconds},
      {"draft_tokens", report.draft_tokens},
      {"accepted_tokens", report.accepted_tokens},
      {"steps", report.steps},
      {"ttft_s", ToJson(report.time_to_first_token)},
      {"tpot_s", ToJson(report.time_per_output_token)},
      {"itl_s", ToJson(report.inter_token_latency)},
      {"total_s", ToJson(report.total)},
      {"rejection_s", ToJson(report.rejection)},
  };
  json["requests"] = nlohmann::json::array();
  for (const RequestRecord& record : records) json["requests"].push_back(ToJson(record));
  return json.dump(1);
}

std::string ToMarkdown(const LoadReport& report) {
  const double seconds = std::max(report.seconds, 1e-9);
  std::string text = absl::StrFormat(
      "%d answered, %d refused, %d failed in %.1f s · %.1f output tok/s · %.2f requests/s, "
      "%.2f good\n%d prompt tokens, %d of them cached",
      report.num_ok, report.num_rejected, report.num_failed, report.seconds,
      report.output_tokens / seconds, report.num_ok / seconds, report.num_good / seconds,
      report.prompt_tokens, report.cached_tokens);
  if (report.draft_tokens > 0) {
    absl::StrAppendFormat(&text, " · accepted %.0f %% of %d draft tokens",
                          100.0 * report.accepted_tokens / report.draft_tokens,
                          report.draft_tokens);
  }
  absl::StrAppendFormat(&text,
                        "\n\n| ms | p50 | p90 | p95 | p99 | max |\n|---|---|---|---|---|---|\n");
  const auto row = [&](const char* name, const Percentiles& p) {
    if (p.count == 0) return;
    absl::StrAppendFormat(&text, "| %s | %.1f | %.1f | %.1f | %.1f | %.1f |\n", name, 1e3 * p.p50,
                          1e3 * p.p90, 1e3 * p.p95, 1e3 * p.p99, 1e3 * p.max);
  };
  row("time to first token", report.time_to_first_token);
  row("time per output token", report.time_per_output_token);
  row("inter-token latency", report.inter_token_latency);
  row("whole request", report.total);
  row("refusal", report.rejection);
  return text;
}

}  // namespace tandem
