// Whether draft and target work at the same time, each on one half of the batch, and when they
// are measured all the same.
#pragma once

#include <cstdint>

#include "absl/time/time.h"

namespace tandem::gateway {

enum class Pipelining { kOff, kAuto, kOn };

// Measures both ways of running a batch in tokens a second, in turn: the present way for some
// rounds, the other for a few, and the faster one until it is time to look again. What it
// looks at and loses by is looked at half as often the next time. Not thread-safe.
class PipelineChooser {
 public:
  explicit PipelineChooser(Pipelining mode)
      : mode_(mode), uses_halves_(mode == Pipelining::kOn), interval_(kFirstInterval) {}

  // Whether the next round is to use halves.
  bool Choose() const { return uses_halves_; }
  // What a round brought that Choose was asked for.
  void Observe(int32_t num_tokens, absl::Duration duration);

  static constexpr int32_t kFirstInterval = 256;
  static constexpr int32_t kLastInterval = 1 << 14;
  static constexpr int32_t kTrialRounds = 24;
  // Of a trial: the pipeline fills.
  static constexpr int32_t kSettlingRounds = 4;
  static constexpr double kLeastGain = 1.03;

 private:
  struct Rate {
    int64_t num_tokens = 0;
    absl::Duration duration;
    double PerSecond() const {
      const double seconds = absl::ToDoubleSeconds(duration);
      return seconds > 0.0 ? static_cast<double>(num_tokens) / seconds : 0.0;
    }
  };

  void Begin(bool is_trial);

  const Pipelining mode_;
  bool uses_halves_;
  bool is_trial_ = false;
  int32_t interval_;
  int32_t num_rounds_ = 0;  // of this phase
  Rate rate_;               // of its last kTrialRounds
  double present_rate_ = 0.0;
};

// When rounds in halves measure: steps beside each other do not show what each costs, so now and
// then one waits for the other. Rarely while the prices are right, which grow with contexts over
// hundreds of rounds; sooner after one was wrong. Not thread-safe.
class MeasuringTurns {
 public:
  // Whether the next round in halves is to measure. Asked once for each that could.
  bool Take();
  // What one of its steps was expected to take, 0 when nothing was known, and took.
  void Observe(double expected_seconds, double seconds);

  // From one round that measures to the next. Each costs at most what the shorter step takes.
  static constexpr int32_t kLeastInterval = 16;
  static constexpr int32_t kMostInterval = 64;

 private:
  int32_t interval_ = kLeastInterval;
  int32_t num_left_ = 0;  // rounds before the next turn
};

}  // namespace tandem::gateway
