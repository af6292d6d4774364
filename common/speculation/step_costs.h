// What steps cost, learned from those that were run.
#pragma once

#include <array>
#include <cstdint>

namespace tandem {

// Seconds of a verify step by its rows, of a propose step by its sequences and length, as
// running averages that one odd measurement cannot upset. Nothing measured yet: guesses
// relative to what is.
class StepCosts {
 public:
  // A verify step without prefill. Requires num_rows > 0 and seconds > 0.
  void ObserveVerify(int32_t num_rows, double seconds);
  // A step of decodes and parts of prompts: tells about a row count while no verify does. Of a
  // large batch nothing else may, and a guess that is too high or low would last.
  void ObserveMixed(int32_t num_rows, double seconds);
  // A propose step: `num_draft_tokens` is the longest draft of it, above 0.
  void ObservePropose(int32_t num_sequences, int32_t num_draft_tokens, double seconds);
  // Tokens that the draft only appended.
  void ObserveDraftPrefill(int32_t num_tokens, double seconds);

  bool knows_verify() const { return (measured_ & ~mixed_) != 0; }
  bool knows_propose() const { return knows_propose_; }

  // Requires knows_verify().
  double Verify(int32_t num_rows) const;
  // What a row more costs beside `num_rows`; 0 when only one row count was measured. Requires
  // knows_verify().
  double RowSeconds(int32_t num_rows) const;
  // More rows beside these that hardly cost anything, kMostFree at most: a GPU runs so many at a
  // time. Requires knows_verify().
  int32_t FreeRows(int32_t num_rows) const;
  static constexpr int32_t kMostFree = 32;
  // 0 without draft tokens; a guess unless knows_propose(). Requires knows_verify().
  double Propose(int32_t num_sequences, int32_t num_draft_tokens) const;
  // 0 until measured. A GPU takes hardly longer for 64 tokens than for 8.
  double DraftPrefill(int32_t num_tokens) const { return draft_prefill_.At(num_tokens); }
  // Of one token more; 0 until measured.
  double DraftPrefillToken() const { return draft_prefill_.per_token; }

 private:
  // One row count up to 16, then eight ranges for each doubling, up to 1024.
  static constexpr int32_t kNumRowClasses = 16 + 6 * 8;
  static_assert(kNumRowClasses == 64);  // the bits of measured_
  static constexpr int32_t kNumBatchClasses = 6;

  struct Average {
    double value = 0.0;
    int32_t num_observations = 0;
    void Observe(double seconds);
  };
  // seconds = fixed + per_token * num_tokens, by decaying least squares: solved when something is
  // observed, since a plan asks it hundreds of times.
  struct Line {
    double n = 0.0, x = 0.0, xx = 0.0, y = 0.0, xy = 0.0;
    int32_t num_observations = 0;
    double fixed = 0.0;
    double per_token = 0.0;
    void Observe(double num_tokens, double seconds);
    double At(double num_tokens) const { return fixed + per_token * num_tokens; }

   private:
    void Solve();
  };

  static int32_t RowClass(int32_t num_rows);
  static int32_t RowsOf(int32_t row_class);  // a row count in the middle of it
  static int32_t BatchClass(int32_t num_sequences);

  std::array<Average, kNumRowClasses> verify_;
  uint64_t measured_ = 0;  // those of verify_ that were observed
  uint64_t mixed_ = 0;     // those of them that only steps with prompts told about
  std::array<Line, kNumBatchClasses> propose_;
  Line draft_prefill_;
  bool knows_propose_ = false;
};

}  // namespace tandem
