// What a worker still has and is to forget.
#pragma once

#include <cstddef>
#include <vector>

#include "common/base/ids.h"

namespace tandem::gateway {

// Sequences that are open in a worker and not with us. They are told with each step until
// one of them was answered: a worker does nothing of a step that it refuses. A step releases
// before it opens, so it may open what it releases. None is in it twice, and so it is never
// more than the worker has. Not thread-safe.
class ReleaseQueue {
 public:
  // Requires that it is not here: it was open until now.
  void Add(SequenceId sequence) { ids_.push_back(sequence); }
  // What the step says that is sent now.
  const std::vector<SequenceId>& Tell() {
    num_told_ = ids_.size();
    return ids_;
  }
  void OnAnswered() {
    ids_.erase(ids_.begin(), ids_.begin() + static_cast<std::ptrdiff_t>(num_told_));
    num_told_ = 0;
  }
  // Another session: it has nothing of them.
  void Clear() { *this = {}; }

  size_t size() const { return ids_.size(); }
  bool empty() const { return ids_.empty(); }
  auto begin() const { return ids_.begin(); }
  auto end() const { return ids_.end(); }

 private:
  std::vector<SequenceId> ids_;
  size_t num_told_ = 0;  // of the first, by the step in flight
};

}  // namespace tandem::gateway
