#include "services/gateway/engine/waiting_queue.h"

#include <algorithm>
#include <limits>
#include <tuple>
#include <utility>

#include "absl/container/flat_hash_set.h"
#include "common/base/check.h"

namespace tandem::gateway {
namespace {

constexpr double kOutputWeight = 2.0;  // as in the paper
constexpr size_t kMaxClients = 4096;   // whose service is remembered

}  // namespace

void WaitingQueue::Push(std::unique_ptr<Sequence> sequence, absl::Duration now) {
  sequence->waiting_since = now;
  Enter(sequence->request.client);
  sequences_.push_back(std::move(sequence));
}

void WaitingQueue::Enter(const std::string& client) {
  double least = std::numeric_limits<double>::infinity();
  for (const auto& other : sequences_) {
    if (other->request.client == client) return;
    least = std::min(least, ServiceOf(other->request.client));
  }
  if (service_.size() >= kMaxClients) ForgetClients();
  double& service = service_[client];
  if (least != std::numeric_limits<double>::infinity()) service = std::max(service, least);
}

// All that wait for nothing start again with the least served.
void WaitingQueue::ForgetClients() {
  absl::flat_hash_set<std::string> waiting;
  for (const auto& sequence : sequences_) waiting.insert(sequence->request.client);
  absl::erase_if(service_, [&](const auto& entry) { return !waiting.contains(entry.first); });
}

int64_t WaitingQueue::EffectivePriority(const Sequence& sequence, absl::Duration now) const {
  return sequence.request.priority +
         absl::ToInt64Nanoseconds(now - sequence.waiting_since) / absl::ToInt64Nanoseconds(aging_);
}

bool WaitingQueue::IsBefore(const Sequence& a, const Sequence& b, absl::Duration now) const {
  const auto key = [&](const Sequence& sequence) {
    return std::make_tuple(-EffectivePriority(sequence, now), sequence.is_started ? 0 : 1,
                           sequence.is_started ? 0.0 : ServiceOf(sequence.request.client),
                           sequence.id);
  };
  return key(a) < key(b);
}

Sequence* WaitingQueue::Next(absl::Duration now) const {
  if (sequences_.empty()) return nullptr;
  const auto next =
      std::min_element(sequences_.begin(), sequences_.end(),
                       [&](const auto& a, const auto& b) { return IsBefore(*a, *b, now); });
  return next->get();
}

std::unique_ptr<Sequence> WaitingQueue::Remove(const Sequence* sequence) {
  const auto place = std::find_if(sequences_.begin(), sequences_.end(),
                                  [&](const auto& other) { return other.get() == sequence; });
  TANDEM_CHECK(place != sequences_.end());
  std::unique_ptr<Sequence> removed = std::move(*place);
  sequences_.erase(place);
  return removed;
}

void WaitingQueue::Charge(const std::string& client, int32_t num_prompt_tokens,
                          int32_t num_output_tokens) {
  if (service_.size() >= kMaxClients && !service_.contains(client)) ForgetClients();
  service_[client] += num_prompt_tokens + kOutputWeight * num_output_tokens;
}

double WaitingQueue::ServiceOf(const std::string& client) const {
  const auto found = service_.find(client);
  return found == service_.end() ? 0.0 : found->second;
}

}  // namespace tandem::gateway
