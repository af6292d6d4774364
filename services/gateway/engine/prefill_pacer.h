// How many prompt tokens a step may carry beside decodes.
#pragma once

#include <array>
#include <bit>
#include <cstdint>

namespace tandem::gateway {

// Those who wait for their next token should hardly notice that another's prompt is read. But
// each prompt that waits may have that much of a step: many who come at once are soon all
// served, and a batch that fills slowly is slow for all.
// A step with a chunk of it costs `fixed` (all KV of the prompt so far is read again) and
// `per_token` seconds more; both are learned from the steps that were run. Where a device has sizes
// of steps, the first row of the next size costs as much as all of it: sizes that took too long
// twice are left alone for a while. Not thread-safe.
class PrefillPacer {
 public:
  struct Options {
    // A step with prefill should take at most this many times one without...
    double stretch = 1.5;
    // ...and may take this many where less would spend most of it on the fixed cost.
    double max_stretch = 1.9;
    int32_t max_tokens = 256;
  };

  explicit PrefillPacer(const Options& options) : options_(options) {}

  // Tokens for the next step, at least 1. `plain_seconds` is what it costs without any, 0: not
  // known yet; `num_prompts` wait for their first token beside `num_decoding` sequences.
  int32_t Budget(double plain_seconds, int32_t num_prompts, int32_t num_decoding) const;

  // A finished step of decodes, drafts and `num_tokens` > 0 of prefill.
  struct MixedStep {
    int32_t num_tokens = 0;
    int32_t num_other_rows = 0;
    int32_t num_prompts = 1;  // that waited, as Budget was told
    double seconds = 0.0;
    double plain_seconds = 0.0;
    double row_seconds = 0.0;  // of one more row in a step; 0: not known
  };
  void ObserveMixed(const MixedStep& step);
  // A finished step of prefill alone.
  void ObserveAlone(int32_t num_tokens, double seconds);

  double fixed_seconds() const { return fixed_; }
  // The less of what a row costs beside decodes, where a few more may cost as much as many, and
  // of what a token costs in a step of prompts. 0: not known yet.
  double token_seconds() const;

 private:
  // Steps of 2^(i - 1) + 1 to 2^i rows.
  struct Size {
    int32_t num_too_long = 0;  // in a row
    int32_t num_steps_out = 0;
  };
  static int32_t SizeOf(int32_t num_rows) {
    return std::bit_width(static_cast<uint32_t>(num_rows - 1));
  }
  int32_t FitSizes(int32_t num_tokens, int32_t num_decoding) const;
  void ObserveSize(const MixedStep& step);

  Options options_;
  std::array<Size, 32> sizes_ = {};
  double fixed_ = 0.0;
  double row_token_ = 0.0;    // 0: not known yet
  double alone_token_ = 0.0;  // same
};

}  // namespace tandem::gateway
