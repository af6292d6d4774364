// Requests that wait for a place in the steps, and whose turn it is.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/container/node_hash_map.h"
#include "absl/time/time.h"
#include "services/gateway/engine/sequence.h"

namespace tandem::gateway {

// The order is one of priorities first: each is raised by one for every `aging` that the oldest
// of its requests has waited, so that none is passed over for ever. Within a priority come those
// that ran before and had to go; then the client whose turn has not come for the longest, if that
// is longer than kLongestTurn; then the one that was served least; then the oldest request.
//
// Clients are served fairly by the tokens they got (Sheng et al. 2024, "Fairness in Serving
// Large Language Models", virtual token counter): one that comes with nothing waiting is
// taken to have had as much as the least served of those that wait, or as the last whose turn it
// was, so that idling saves up nothing. A client with a hundred old requests does not go before
// one with a new one: only the turns of clients age, not their requests.
//
// A sequence that ran and whose client does not read waits until it does, without a turn.
// Not thread-safe.
class WaitingQueue {
 public:
  explicit WaitingQueue(absl::Duration aging) : aging_(aging) {}

  static constexpr int32_t kLongestTurn = 12;  // in `aging`

  void Push(std::unique_ptr<Sequence> sequence, absl::Duration now);
  // Whose turn it is; null when nobody waits for one. Stays until removed.
  Sequence* Next(absl::Duration now) const;
  // Its turn has come: removes it. What it waited since it had to go counts for its rank.
  std::unique_ptr<Sequence> Admit(const Sequence* sequence, absl::Duration now);
  // Requires that it is here, as Admit does.
  std::unique_ptr<Sequence> Remove(const Sequence* sequence);

  // Counts what a client got: tokens run for it, those it waited for each weighing more.
  void Charge(const std::string& client, int32_t num_prompt_tokens, int32_t num_output_tokens);
  double ServiceOf(const std::string& client) const;
  // Whether somebody who had to go for want of pages waits for its turn.
  bool HasPreempted() const;

  int32_t size() const { return static_cast<int32_t>(sequences_.size()); }
  bool empty() const { return sequences_.empty(); }
  auto begin() const { return sequences_.begin(); }
  auto end() const { return sequences_.end(); }

 private:
  struct Client {
    double service = 0.0;
    absl::Duration turn_since = absl::ZeroDuration();  // its last turn, or when it came
    int32_t num_waiting = 0;
  };

  bool IsBefore(size_t a, size_t b, absl::Duration now) const;
  int64_t Priority(const Sequence& sequence, absl::Duration now) const;
  Client* Enter(const std::string& name, absl::Duration now);
  void ForgetClients();

  absl::Duration aging_;
  std::vector<std::unique_ptr<Sequence>> sequences_;  // in no particular order
  std::vector<Client*> client_of_;                    // of sequences_
  absl::node_hash_map<std::string, Client> clients_;
  double last_service_ = 0.0;  // of the last client whose turn it was
};

}  // namespace tandem::gateway
