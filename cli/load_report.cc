#include "cli/load_report.h"

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>
#include <numeric>

#include "absl/strings/str_format.h"

namespace tandem {
namespace {

double Seconds(absl::Duration duration) { return absl::ToDoubleSeconds(duration); }

// When the client began to wait.
absl::Duration BeginOf(const RequestRecord& record) { return record.due.value_or(record.sent); }

// Until the first token, or the end of an answer without any.
double TimeToFirstSign(const RequestRecord& record) {
  const bool is_empty = record.output_tokens == 0;
  return Seconds((is_empty ? record.end : record.first_token) - BeginOf(record));
}

// Of the tokens after the first; 0 when there are none.
double TimePerOutputToken(const RequestRecord& record) {
  if (record.output_tokens < 2) return 0.0;
  return Seconds(record.last_token - record.first_token) / (record.output_tokens - 1);
}

bool IsGood(const RequestRecord& record, const ServiceLevel& level) {
  const auto meets = [](double seconds, absl::Duration limit) {
    return limit == absl::ZeroDuration() || seconds <= Seconds(limit);
  };
  return meets(TimeToFirstSign(record), level.time_to_first_token) &&
         meets(TimePerOutputToken(record), level.time_per_output_token);
}

nlohmann::json ToJson(const Percentiles& p) {
  return {{"count", p.count}, {"mean", p.mean}, {"p50", p.p50}, {"p90", p.p90},
          {"p95", p.p95},     {"p99", p.p99},   {"max", p.max}};
}

nlohmann::json ToJson(const RequestRecord& record) {
  nlohmann::json json = nlohmann::json::object();
  if (record.due.has_value()) json["due_s"] = Seconds(*record.due);
  if (!record.was_sent) {
    json["code"] = "NOT_SENT";
    return json;
  }
  json["sent_s"] = Seconds(record.sent);
  json["end_s"] = Seconds(record.end);
  json["code"] = absl::StatusCodeToString(record.status.code());
  json["prompt_tokens"] = record.prompt_tokens;
  json["cached_tokens"] = record.cached_tokens;
  json["output_tokens"] = record.output_tokens;
  if (!record.status.ok()) return json;
  if (record.output_tokens > 0) json["ttft_s"] = TimeToFirstSign(record);
  if (record.output_tokens > 1) json["tpot_s"] = TimePerOutputToken(record);
  if (!record.gaps_s.empty()) {
    json["longest_gap_s"] = *std::max_element(record.gaps_s.begin(), record.gaps_s.end());
  }
  return json;
}

// For the head of the report; empty when all was sent.
std::string NotSentLine(const LoadReport& report) {
  if (report.num_not_sent == 0) return "";
  return absl::StrFormat(
      "**Not an open loop**: %d of %d arrivals were not sent by the generator, which had as many "
      "requests in flight as --concurrency allows. The server had less load than asked for.\n\n",
      report.num_not_sent,
      report.num_ok + report.num_rejected + report.num_failed + report.num_not_sent);
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
  std::vector<double> first, per_token, gaps, total, rejection, lateness;
  absl::Duration start = absl::InfiniteDuration();
  absl::Duration end = absl::ZeroDuration();
  for (const RequestRecord& record : records) {
    if (!record.was_sent) {
      ++report.num_not_sent;
      continue;
    }
    start = std::min(start, BeginOf(record));
    end = std::max(end, record.end);
    if (record.due.has_value()) lateness.push_back(Seconds(record.sent - *record.due));
    if (absl::IsResourceExhausted(record.status)) {
      ++report.num_rejected;
      rejection.push_back(Seconds(record.end - BeginOf(record)));
      continue;
    }
    if (!record.status.ok()) {
      ++report.num_failed;
      report.first_failure.Update(record.status);
      continue;
    }
    ++report.num_ok;
    report.num_empty += record.output_tokens == 0 ? 1 : 0;
    report.num_good += IsGood(record, level) ? 1 : 0;
    report.prompt_tokens += record.prompt_tokens;
    report.cached_tokens += record.cached_tokens;
    report.output_tokens += record.output_tokens;
    report.draft_tokens += record.draft_tokens;
    report.accepted_tokens += record.accepted_tokens;
    report.steps += record.steps;
    if (record.output_tokens > 0) first.push_back(TimeToFirstSign(record));
    if (record.output_tokens > 1) per_token.push_back(TimePerOutputToken(record));
    gaps.insert(gaps.end(), record.gaps_s.begin(), record.gaps_s.end());
    total.push_back(Seconds(record.end - BeginOf(record)));
  }
  if (start < end) report.seconds = Seconds(end - start);
  report.time_to_first_token = PercentilesOf(std::move(first));
  report.time_per_output_token = PercentilesOf(std::move(per_token));
  report.inter_token_latency = PercentilesOf(std::move(gaps));
  report.total = PercentilesOf(std::move(total));
  report.rejection = PercentilesOf(std::move(rejection));
  report.lateness = PercentilesOf(std::move(lateness));
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
      {"empty", report.num_empty},
      {"not_sent", report.num_not_sent},
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
      {"lateness_s", ToJson(report.lateness)},
  };
  json["requests"] = nlohmann::json::array();
  for (const RequestRecord& record : records) json["requests"].push_back(ToJson(record));
  return json.dump(1);
}

std::string ToMarkdown(const LoadReport& report) {
  const double seconds = std::max(report.seconds, 1e-9);
  std::string text = NotSentLine(report);
  absl::StrAppendFormat(
      &text,
      "%d answered, %d refused, %d failed in %.1f s · %.1f output tok/s · %.2f requests/s, "
      "%.2f good\n%d prompt tokens, %d of them cached",
      report.num_ok, report.num_rejected, report.num_failed, report.seconds,
      report.output_tokens / seconds, report.num_ok / seconds, report.num_good / seconds,
      report.prompt_tokens, report.cached_tokens);
  if (report.num_empty > 0) {
    absl::StrAppendFormat(&text, " · %d answers without a token", report.num_empty);
  }
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
  row("generator's lateness", report.lateness);
  return text;
}

}  // namespace tandem
