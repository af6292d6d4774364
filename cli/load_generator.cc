#include "cli/load_generator.h"

#include <atomic>
#include <cmath>
#include <mutex>
#include <random>
#include <thread>

#include "absl/time/clock.h"
#include "common/base/clock.h"

namespace tandem {
namespace {

namespace v1 = gateway::v1;

int32_t Draw(const TokenRange& range, std::mt19937_64& random) {
  if (range.high <= range.low) return range.low;
  return range.low + static_cast<int32_t>(random() % (range.high - range.low + 1));
}

RequestRecord RunOne(GatewayClient& client, const v1::GenerateRequest& request, absl::Time start) {
  RequestRecord record;
  record.sent = SteadyNow() - start;
  record.status = client.Generate(request, [&](const v1::GenerateResponse& event) {
    const absl::Duration now = SteadyNow() - start;
    if (event.has_delta() && event.delta().token_ids_size() > 0) {
      if (record.output_tokens == 0) {
        record.first_token = now;
      } else {
        record.gaps_s.push_back(absl::ToDoubleSeconds(now - record.last_token));
      }
      record.output_tokens += event.delta().token_ids_size();
      record.last_token = now;
    } else if (event.has_finished()) {
      const v1::Finished& finished = event.finished();
      record.prompt_tokens = finished.usage().prompt_tokens();
      record.cached_tokens = finished.usage().cached_tokens();
      record.draft_tokens = finished.speculation().draft_token_count();
      record.accepted_tokens = finished.speculation().accepted_token_count();
      record.steps = finished.speculation().step_count();
    }
    return true;
  });
  record.end = SteadyNow() - start;
  return record;
}

// Calls `on_progress` until all are over.
void Report(const std::atomic<int32_t>& num_over, int32_t total,
            const std::function<void(int32_t)>& on_progress) {
  while (num_over < total) {
    on_progress(num_over);
    absl::SleepFor(absl::Milliseconds(100));
  }
  on_progress(total);
}

}  // namespace

std::vector<PlannedRequest> PlanLoad(const LoadOptions& options,
                                     const v1::GenerateRequest& prototype, int32_t vocabulary_size,
                                     const std::vector<std::string>& texts) {
  std::mt19937_64 random(options.seed);
  std::vector<std::vector<int32_t>> prefixes(std::max(1, options.num_shared_prefixes));
  const auto token = [&] { return static_cast<int32_t>(random() % vocabulary_size); };
  for (auto& prefix : prefixes) {
    for (int32_t i = 0; i < options.shared_prefix_tokens; ++i) prefix.push_back(token());
  }
  std::vector<PlannedRequest> plan;
  absl::Duration due = absl::ZeroDuration();
  for (int32_t i = 0; i < options.num_requests; ++i) {
    PlannedRequest planned{.request = prototype, .due = due};
    if (!texts.empty()) {
      v1::ChatMessage* message = planned.request.mutable_chat()->add_messages();
      message->set_role("user");
      message->set_content(texts[i % texts.size()]);
    } else {
      // Of random tokens no answer makes sense, nor does its end.
      planned.request.mutable_stopping()->set_ignore_eos(true);
      auto* ids = planned.request.mutable_token_ids()->mutable_ids();
      for (const int32_t id : prefixes[i % prefixes.size()]) ids->Add(id);
      for (int32_t n = Draw(options.prompt_tokens, random); n > 0; --n) ids->Add(token());
    }
    planned.request.mutable_stopping()->set_max_tokens(Draw(options.output_tokens, random));
    planned.request.mutable_sampling()->set_seed(options.seed * 1000003 + i);
    plan.push_back(std::move(planned));
    if (options.rate > 0.0) {
      const double uniform = std::uniform_real_distribution<double>(1e-12, 1.0)(random);
      due += absl::Seconds(-std::log(uniform) / options.rate);
    }
  }
  return plan;
}

std::vector<RequestRecord> RunLoad(GatewayClient& client, const LoadOptions& options,
                                   const std::vector<PlannedRequest>& plan,
                                   const std::function<void(int32_t)>& on_progress) {
  const auto total = static_cast<int32_t>(plan.size());
  std::vector<RequestRecord> records(plan.size());
  std::vector<std::thread> threads;
  std::atomic<int32_t> next = 0, num_over = 0, num_in_flight = 0;
  const absl::Time start = SteadyNow();
  const auto run = [&](int32_t index) {
    records[index] = RunOne(client, plan[index].request, start);
    if (options.rate > 0.0) records[index].due = plan[index].due;
    --num_in_flight;
    ++num_over;
  };
  if (options.rate <= 0.0) {
    for (int32_t i = 0; i < std::min(options.concurrency, total); ++i) {
      threads.emplace_back([&] {
        for (int32_t index = next++; index < total; index = next++) {
          ++num_in_flight;
          run(index);
        }
      });
    }
    Report(num_over, total, on_progress);
  } else {
    std::thread reporter([&] { Report(num_over, total, on_progress); });
    for (int32_t index = 0; index < total; ++index) {
      absl::SleepFor(start + plan[index].due - SteadyNow());
      if (num_in_flight >= options.concurrency) {
        records[index].due = plan[index].due;
        records[index].was_sent = false;
        ++num_over;
        continue;
      }
      ++num_in_flight;
      threads.emplace_back(run, index);
    }
    reporter.join();
  }
  for (std::thread& thread : threads) thread.join();
  return records;
}

}  // namespace tandem
