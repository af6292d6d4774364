// What a client has not read yet.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <variant>

#include "absl/status/status.h"
#include "services/gateway/engine/request.h"

namespace tandem::gateway {

// Between the engine, which must not wait, and a client that may be slow: deltas that wait
// become one, so it is bounded by the text alone; when that is too much it says so, and the
// engine leaves the sequence out of its steps. Not thread-safe.
class StreamBuffer {
 public:
  using Event = std::variant<StartedInfo, TokenDelta, FinishedInfo>;

  static constexpr int32_t kMaxTokens = 256;
  static constexpr int64_t kMaxBytes = 64 << 10;

  void PutStarted(const StartedInfo& info) { started_ = info; }
  void PutDelta(TokenDelta delta);
  void PutFinished(const FinishedInfo& info) { finished_ = info; }
  // The end of the stream; events before it are still to be taken if it is OK.
  void PutEnd(absl::Status status);

  // The next event in order; none when there is nothing (yet).
  std::optional<Event> Take();
  // The end, once all events before it were taken.
  std::optional<absl::Status> End() const;

  bool IsEmpty() const { return !started_ && !delta_ && !finished_ && !end_; }
  bool IsDeltaNext() const { return !started_ && delta_.has_value(); }
  // Nothing more comes.
  bool IsEnding() const { return end_.has_value(); }
  // Of text that waits.
  int64_t num_bytes() const { return num_bytes_; }
  bool IsFull() const { return num_tokens_ >= kMaxTokens || num_bytes_ >= kMaxBytes; }

 private:
  std::optional<StartedInfo> started_;
  std::optional<TokenDelta> delta_;
  std::optional<FinishedInfo> finished_;
  std::optional<absl::Status> end_;
  int32_t num_tokens_ = 0;
  int64_t num_bytes_ = 0;
};

}  // namespace tandem::gateway
