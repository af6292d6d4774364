#include "services/gateway/engine/waiting_queue.h"

#include <algorithm>
#include <limits>
#include <map>
#include <tuple>
#include <utility>

#include "common/base/check.h"

namespace tandem::gateway {
namespace {

constexpr double kOutputWeight = 2.0;  // as in the paper
constexpr size_t kMaxClients = 4096;   // whose service is remembered

bool WaitsForTurn(const Sequence& sequence) { return !sequence.is_congested(); }

}  // namespace

void WaitingQueue::Push(std::unique_ptr<Sequence> sequence, absl::Duration now) {
  sequence->waiting_since = now;
  Client* client = Enter(sequence->request.client, now);
  ++client->num_waiting;
  client_of_.push_back(client);
  sequences_.push_back(std::move(sequence));
}

WaitingQueue::Client* WaitingQueue::Enter(const std::string& name, absl::Duration now) {
  if (clients_.size() >= kMaxClients && !clients_.contains(name)) ForgetClients();
  Client& client = clients_[name];
  if (client.num_waiting > 0) return &client;
  double least = sequences_.empty() ? last_service_ : std::numeric_limits<double>::infinity();
  for (const Client* other : client_of_) least = std::min(least, other->service);
  client.service = std::max(client.service, least);
  client.turn_since = now;
  return &client;
}

// All that wait for nothing start again with the least served.
void WaitingQueue::ForgetClients() {
  absl::erase_if(clients_, [](const auto& entry) { return entry.second.num_waiting == 0; });
}

int64_t WaitingQueue::Priority(const Sequence& sequence, absl::Duration now) const {
  const absl::Duration waited = sequence.waited_preempted + (now - sequence.waiting_since);
  return sequence.request.priority +
         absl::ToInt64Nanoseconds(waited) / absl::ToInt64Nanoseconds(aging_);
}

bool WaitingQueue::IsBefore(size_t a, size_t b, absl::Duration now) const {
  const auto key = [&](size_t i) {
    const Sequence& sequence = *sequences_[i];
    const Client& client = *client_of_[i];
    const bool is_overdue = now - client.turn_since >= kLongestTurn * aging_;
    return std::make_tuple(!sequence.is_started, sequence.is_started ? -Priority(sequence, now) : 0,
                           is_overdue ? client.turn_since : absl::InfiniteDuration(),
                           sequence.is_started ? 0.0 : client.service, sequence.id);
  };
  return key(a) < key(b);
}

Sequence* WaitingQueue::Next(absl::Duration now) const {
  struct Candidate {
    int64_t raised = std::numeric_limits<int64_t>::min();  // priority
    size_t first = 0;
  };
  std::map<int32_t, Candidate> candidates;  // by the priority that was asked for
  for (size_t i = 0; i < sequences_.size(); ++i) {
    const Sequence& sequence = *sequences_[i];
    if (!WaitsForTurn(sequence)) continue;
    const auto [entry, is_new] =
        candidates.try_emplace(sequence.request.priority, Candidate{.first = i});
    Candidate& candidate = entry->second;
    if (!is_new && IsBefore(i, candidate.first, now)) candidate.first = i;
    candidate.raised = std::max(candidate.raised, Priority(sequence, now));
  }
  if (candidates.empty()) return nullptr;
  const auto next = std::min_element(
      candidates.begin(), candidates.end(), [&](const auto& left, const auto& right) {
        const Candidate& a = left.second;
        const Candidate& b = right.second;
        return a.raised != b.raised ? a.raised > b.raised : IsBefore(a.first, b.first, now);
      });
  return sequences_[next->second.first].get();
}

std::unique_ptr<Sequence> WaitingQueue::Admit(const Sequence* sequence, absl::Duration now) {
  std::unique_ptr<Sequence> admitted = Remove(sequence);
  Client& client = clients_[admitted->request.client];
  client.turn_since = now;
  last_service_ = client.service;
  if (admitted->is_started) {
    admitted->waited_preempted += now - admitted->waiting_since;
    admitted->waiting_since = now;
    admitted->rank = Priority(*admitted, now);
  }
  return admitted;
}

std::unique_ptr<Sequence> WaitingQueue::Remove(const Sequence* sequence) {
  const auto place = std::find_if(sequences_.begin(), sequences_.end(),
                                  [&](const auto& other) { return other.get() == sequence; });
  TANDEM_CHECK(place != sequences_.end());
  std::unique_ptr<Sequence> removed = std::move(*place);
  const auto client = client_of_.begin() + (place - sequences_.begin());
  --(*client)->num_waiting;
  client_of_.erase(client);
  sequences_.erase(place);
  return removed;
}

void WaitingQueue::Charge(const std::string& client, int32_t num_prompt_tokens,
                          int32_t num_output_tokens) {
  if (clients_.size() >= kMaxClients && !clients_.contains(client)) ForgetClients();
  clients_[client].service += num_prompt_tokens + kOutputWeight * num_output_tokens;
}

double WaitingQueue::ServiceOf(const std::string& client) const {
  const auto found = clients_.find(client);
  return found == clients_.end() ? 0.0 : found->second.service;
}

bool WaitingQueue::HasPreempted() const {
  return std::any_of(sequences_.begin(), sequences_.end(), [](const auto& sequence) {
    return sequence->is_started && WaitsForTurn(*sequence);
  });
}

}  // namespace tandem::gateway
