#include "services/gateway/stream_buffer.h"

#include <iterator>
#include <utility>

namespace tandem::gateway {

void StreamBuffer::PutDelta(TokenDelta delta) {
  num_tokens_ += static_cast<int32_t>(delta.token_ids.size());
  num_bytes_ += static_cast<int64_t>(delta.text.size());
  if (!delta_.has_value()) {
    delta_ = std::move(delta);
    return;
  }
  delta_->text += delta.text;
  delta_->token_ids.insert(delta_->token_ids.end(), delta.token_ids.begin(), delta.token_ids.end());
  delta_->logprobs.insert(delta_->logprobs.end(), std::make_move_iterator(delta.logprobs.begin()),
                          std::make_move_iterator(delta.logprobs.end()));
}

void StreamBuffer::PutEnd(absl::Status status) {
  if (!end_.has_value()) end_ = std::move(status);
}

std::optional<StreamBuffer::Event> StreamBuffer::Take() {
  if (started_.has_value()) return *std::exchange(started_, std::nullopt);
  if (delta_.has_value()) {
    num_tokens_ = 0;
    num_bytes_ = 0;
    return *std::exchange(delta_, std::nullopt);
  }
  if (finished_.has_value()) return *std::exchange(finished_, std::nullopt);
  return std::nullopt;
}

std::optional<absl::Status> StreamBuffer::End() const {
  if (started_.has_value() || delta_.has_value() || finished_.has_value()) return std::nullopt;
  return end_;
}

}  // namespace tandem::gateway
