// What one sequence of a step may gain by drafting.
#pragma once

#include <array>
#include <cstdint>

#include "common/speculation/draft_plan.h"

namespace tandem {

// A plan leaves out tokens that survive with a smaller probability than one of these.
inline constexpr std::array<double, 7> kLeastSurvivals = {0.0, 0.1, 0.25, 0.4, 0.6, 0.8, 0.9};

// Which of all plans of a step: drafts of at most `depth` tokens, each likely enough to survive.
struct Choice {
  int32_t depth = 0;
  int32_t level = 0;  // of kLeastSurvivals
  bool asks_draft = true;
};

// The tokens that one source may draft: each survives where those before it do, so ever less often.
class Survivals {
 public:
  // `probability`: not above that of the token before.
  void Append(double probability);
  int32_t size() const { return size_; }

  // How many of the first `depth` survive with kLeastSurvivals[level]; at least `least` of them.
  int32_t LengthAt(int32_t depth, int32_t level, int32_t least) const;
  // Expected number accepted of the first `length`.
  double Gain(int32_t length) const { return gains_[length]; }

 private:
  int32_t size_ = 0;
  std::array<double, kMaxDraftLength + 1> gains_ = {};
  std::array<int32_t, kLeastSurvivals.size()> lengths_ = {};
};

// A sequence that has something to draft. Plans are compared by the hundred in a step: all that
// they ask is summed up beforehand.
struct Prospect {
  struct Draft {
    DraftSource source = DraftSource::kNone;
    int32_t num_tokens = 0;
    double gain = 0.0;
  };

  explicit Prospect(const DraftRequest& of) : request(&of) {}

  bool IsEmpty() const { return draft.size() == 0 && lookup.size() == 0; }
  // The better source for this choice of lengths. Looked-up drafts, which are free, come before the
  // draft model's where they promise about as much, and where the step asks no draft model.
  Draft Choose(const Choice& choice) const;

  const DraftRequest* request;
  Survivals draft;
  Survivals lookup;
  // How many the draft model is expected to make, by how many it is asked for: it breaks off where
  // it lacks confidence.
  std::array<double, kMaxDraftLength + 1> made = {};
};

}  // namespace tandem
