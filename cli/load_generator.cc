#include "cli/load_generator.h"

#include <atomic>
#include <cmath>
#include <mutex>
#include <random>
#include <thread>
#include <utility>

#include "absl/time/clock.h"
#include "cli/sender_pool.h"
#include "common/base/clock.h"

namespace tandem {
namespace {

namespace v1 = gateway::v1;

// What the threads of one run share. Each of `records` belongs to who runs that request until it
// is over.
struct Test {
  Test(const GenerateCall& call, const std::vector<PlannedRequest>& planned)
      : generate(call), plan(planned), records(planned.size()), start(SteadyNow()) {}

  int32_t size() const { return static_cast<int32_t>(plan.size()); }

  const GenerateCall& generate;
  const std::vector<PlannedRequest>& plan;
  std::vector<RequestRecord> records;
  const absl::Time start;
  std::atomic<int32_t> num_over = 0;
};

void RunOne(Test& test, int32_t index) {
  RequestRecord& record = test.records[index];
  record.sent = SteadyNow() - test.start;
  record.status = test.generate(test.plan[index].request, [&](const v1::GenerateResponse& event) {
    const absl::Duration now = SteadyNow() - test.start;
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
  record.end = SteadyNow() - test.start;
  ++test.num_over;
}

// A closed loop: each client sends when its last answer is there.
void SendInTurn(Test& test, int32_t num_clients) {
  std::atomic<int32_t> next = 0;
  std::vector<std::thread> clients;
  for (int32_t i = 0; i < std::min(num_clients, test.size()); ++i) {
    clients.emplace_back([&] {
      for (int32_t index = next++; index < test.size(); index = next++) RunOne(test, index);
    });
  }
  for (std::thread& client : clients) client.join();
}

// An open loop.
void SendWhenDue(Test& test, int32_t max_in_flight) {
  SenderPool senders(max_in_flight);
  for (int32_t index = 0; index < test.size(); ++index) {
    RequestRecord& record = test.records[index];
    record.due = test.plan[index].due;
    absl::SleepFor(test.start + *record.due - SteadyNow());
    if (senders.TryRun([&test, index] { RunOne(test, index); })) continue;
    record.was_sent = false;
    ++test.num_over;
  }
}

// Calls `on_progress` until all are over.
void Report(const Test& test, const std::function<void(int32_t)>& on_progress) {
  for (int32_t num_over = 0; num_over < test.size(); num_over = test.num_over) {
    on_progress(num_over);
    absl::SleepFor(absl::Milliseconds(100));
  }
  on_progress(test.size());
}

}  // namespace

int32_t MostInFlight(const LoadOptions& options) {
  return options.concurrency.value_or(options.rate > 0.0 ? kMaxConcurrency : kClosedConcurrency);
}

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

std::vector<RequestRecord> RunLoad(const GenerateCall& generate, const LoadOptions& options,
                                   const std::vector<PlannedRequest>& plan,
                                   const std::function<void(int32_t)>& on_progress) {
  Test test(generate, plan);
  std::thread arrivals([&] {
    if (options.rate > 0.0) {
      SendWhenDue(test, MostInFlight(options));
    } else {
      SendInTurn(test, MostInFlight(options));
    }
  });
  Report(test, on_progress);
  arrivals.join();
  return std::move(test.records);
}

}  // namespace tandem
