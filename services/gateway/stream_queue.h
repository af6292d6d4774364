// Streams that have something to write, and whose turn it is.
#pragma once

#include <memory>
#include <vector>

#include "absl/time/time.h"
#include "services/gateway/message_budget.h"

namespace tandem::gateway {

// Who waits longest comes first: with n streams that always have something, each gets a message
// every n / rate seconds, and they are spread over that time. What cannot wait goes at once.
// Knows no clock. Not thread-safe.
class StreamQueue {
 public:
  class Stream {
   public:
    virtual ~Stream() = default;
    // Writes what is due at `now`, of the steady clock; does not wait. A message that can wait
    // it takes from `budget`. When it wants to be asked again: InfiniteDuration: when it is
    // added; not after `now`: the budget had none.
    virtual absl::Duration Write(absl::Duration now, MessageBudget& budget) = 0;
  };

  // Messages a second of all streams together; 0: no limit.
  explicit StreamQueue(double messages_per_second) : budget_(messages_per_second) {}

  void Add(std::shared_ptr<Stream> stream);
  // Has them write what they may at `now`, and drops those that have no more. When to do it
  // again though none is added: InfiniteDuration: not at all. Those for whom nothing is left are
  // not asked, unless `some_cannot_wait`: of a large batch that is most of the work.
  absl::Duration Pass(absl::Duration now, bool some_cannot_wait);
  // Before then a pass does nothing for streams that can wait.
  absl::Duration next_pass() const { return next_pass_; }

 private:
  MessageBudget budget_;
  std::vector<std::shared_ptr<Stream>> streams_;
  absl::Duration next_pass_ = -absl::InfiniteDuration();
};

}  // namespace tandem::gateway
