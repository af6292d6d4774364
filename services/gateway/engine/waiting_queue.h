// Requests that wait for a place in the steps, and whose turn it is.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/time/time.h"
#include "services/gateway/engine/sequence.h"

namespace tandem::gateway {

// The order: priority, raised by one for each `aging` of waiting, so that nobody waits for
// ever; then those that ran before and had to go; then the client that was served least;
// then the oldest.
//
// Clients are served fairly by the tokens they got (Sheng et al. 2024, "Fairness in Serving
// Large Language Models", virtual token counter): one that comes with nothing waiting is
// taken to have had as much as the least served of those that wait, so that idling saves up
// nothing. Not thread-safe.
class WaitingQueue {
 public:
  explicit WaitingQueue(absl::Duration aging) : aging_(aging) {}

  void Push(std::unique_ptr<Sequence> sequence, absl::Duration now);
  // Whose turn it is; null when nobody waits. Stays until removed.
  Sequence* Next(absl::Duration now) const;
  // Requires that it is here.
  std::unique_ptr<Sequence> Remove(const Sequence* sequence);

  // Counts what a client got: tokens run for it, those it waited for each weighing more.
  void Charge(const std::string& client, int32_t num_prompt_tokens, int32_t num_output_tokens);
  double ServiceOf(const std::string& client) const;

  int32_t size() const { return static_cast<int32_t>(sequences_.size()); }
  bool empty() const { return sequences_.empty(); }
  auto begin() const { return sequences_.begin(); }
  auto end() const { return sequences_.end(); }

 private:
  bool IsBefore(const Sequence& a, const Sequence& b, absl::Duration now) const;
  int64_t EffectivePriority(const Sequence& sequence, absl::Duration now) const;
  void Enter(const std::string& client);
  void ForgetClients();

  absl::Duration aging_;
  std::vector<std::unique_ptr<Sequence>> sequences_;  // in no particular order
  absl::flat_hash_map<std::string, double> service_;
};

}  // namespace tandem::gateway
