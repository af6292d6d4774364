// Where the KV of preempted sequences waits: places for pages in the target's host memory.
#pragma once

#include <cstdint>
#include <vector>

#include "absl/time/time.h"
#include "absl/types/span.h"
#include "services/gateway/engine/worker_link.h"

namespace tandem::gateway {

// Gives places away and collects the copies of the next step, which the target makes in the order
// in which they were asked for, before it runs anything: a page may be handed on as soon as its
// copy was asked for, and a place too. To copy is worth it where it takes less time than to run the
// tokens again, by how long the last copies took. Not thread-safe.
class SwapPlanner {
 public:
  // The target has so many places, with nothing in them. What copies take is kept.
  void Reset(int32_t num_places);

  // Whether `num_pages` go there and back in less than `recompute_seconds`, and there is room. As
  // long as one of both was not measured (0) it is tried.
  bool IsWorthwhile(int32_t num_pages, double recompute_seconds);

  // Their content moves to the places that it yields. Requires as many free ones.
  std::vector<int32_t> Out(absl::Span<const PageId> pages);
  // It moves into pages, as many; the places are free again.
  void Back(absl::Span<const int32_t> places, absl::Span<const PageId> pages);
  // It is not needed any more.
  void Free(absl::Span<const int32_t> places);

  bool has_copies() const { return !copies_.empty(); }
  // For the step that is sent next.
  std::vector<PageCopy> TakeCopies();
  // Whether the last step had any.
  bool is_copying() const { return num_in_flight_ > 0; }
  // That step's copies took so long.
  void Observe(absl::Duration duration);

  int32_t num_places() const { return num_places_; }
  int32_t num_free() const { return static_cast<int32_t>(free_.size()); }

 private:
  int32_t num_places_ = 0;
  std::vector<int32_t> free_;
  std::vector<PageCopy> copies_;
  int32_t num_in_flight_ = 0;
  double page_seconds_ = 0.0;  // of a copy; 0: not known yet
};

}  // namespace tandem::gateway
