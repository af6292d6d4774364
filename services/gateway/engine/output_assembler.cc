#include "services/gateway/engine/output_assembler.h"

#include <algorithm>
#include <string_view>

#include "common/tokenizer/tokenizer.h"

namespace tandem::gateway {

OutputAssembler::OutputAssembler(const Tokenizer* tokenizer, StoppingParams stopping,
                                 int32_t max_tokens, FinishReason reason_at_max_tokens)
    : tokenizer_(tokenizer),
      stopping_(std::move(stopping)),
      max_tokens_(max_tokens),
      reason_at_max_tokens_(reason_at_max_tokens),
      decoder_(tokenizer, {.render_special = false, .start = DecodeStart::kContinuation}) {
  std::erase_if(stopping_.stop, [](const std::string& stop) { return stop.empty(); });
}

std::optional<OutputAssembler::End> OutputAssembler::Append(int32_t token_id,
                                                            const TokenLogprob* logprob) {
  ++num_seen_;
  const auto& stop_ids = stopping_.stop_token_ids;
  if ((!stopping_.ignore_eos && tokenizer_->IsEndOfGeneration(token_id)) ||
      std::find(stop_ids.begin(), stop_ids.end(), token_id) != stop_ids.end()) {
    text_ += decoder_.Flush();
    ReleaseAll();
    return End{.reason = FinishReason::kStopToken, .stop = {}, .stop_token_id = token_id};
  }
  const int64_t start = taken_ + static_cast<int64_t>(text_.size());
  text_ += decoder_.Append(token_id);
  const bool is_last = num_seen_ >= max_tokens_;
  if (is_last) text_ += decoder_.Flush();
  PendingToken token{.id = token_id,
                     .start = start,
                     .end = taken_ + static_cast<int64_t>(text_.size()),
                     .logprob = std::nullopt};
  if (logprob != nullptr) token.logprob = *logprob;
  tokens_.push_back(std::move(token));
  ++num_tokens_;

  if (const std::optional<StopMatch> match = FindStop(start)) {
    const std::string& stop = stopping_.stop[match->stop_index];
    CutAt(stopping_.include_stop ? match->end : match->start);
    ReleaseAll();
    return End{.reason = FinishReason::kStopString, .stop = stop, .stop_token_id = -1};
  }
  if (is_last) {
    ReleaseAll();
    return End{.reason = reason_at_max_tokens_, .stop = {}, .stop_token_id = -1};
  }
  Release(static_cast<int64_t>(text_.size()) - HeldBack());
  return std::nullopt;
}

// The first stop string to be complete with a byte from `from` on; none ends before it.
std::optional<OutputAssembler::StopMatch> OutputAssembler::FindStop(int64_t from) const {
  std::optional<StopMatch> best;
  for (size_t i = 0; i < stopping_.stop.size(); ++i) {
    const std::string& stop = stopping_.stop[i];
    const int64_t length = static_cast<int64_t>(stop.size());
    const int64_t search = std::max<int64_t>(0, from - taken_ - length + 1);
    const size_t found = text_.find(stop, static_cast<size_t>(search));
    if (found == std::string::npos) continue;
    const int64_t start = taken_ + static_cast<int64_t>(found);
    const StopMatch match{.stop_index = i, .start = start, .end = start + length};
    if (!best || match.end < best->end || (match.end == best->end && match.start < best->start)) {
      best = match;
    }
  }
  return best;
}

// Length of the longest end of the text that a stop string begins with.
int32_t OutputAssembler::HeldBack() const {
  const std::string_view text = text_;
  size_t held = 0;
  for (const std::string& stop : stopping_.stop) {
    for (size_t length = std::min(stop.size() - 1, text.size()); length > held; --length) {
      if (text.substr(text.size() - length) == std::string_view(stop).substr(0, length)) {
        held = length;
      }
    }
  }
  return static_cast<int32_t>(held);
}

// Text before `up_to` (an index into text_) may be sent, and the tokens that end in it.
void OutputAssembler::Release(int64_t up_to) {
  released_bytes_ = up_to;
  while (num_released_tokens_ < static_cast<int32_t>(tokens_.size()) &&
         tokens_[num_released_tokens_].end <= taken_ + up_to) {
    ++num_released_tokens_;
  }
}

void OutputAssembler::ReleaseAll() {
  released_bytes_ = static_cast<int64_t>(text_.size());
  num_released_tokens_ = static_cast<int32_t>(tokens_.size());
}

// Drops the text from byte `end` of the answer on, and the tokens that only made that.
void OutputAssembler::CutAt(int64_t end) {
  text_.resize(static_cast<size_t>(end - taken_));
  while (!tokens_.empty() && tokens_.back().end > end && tokens_.back().start >= end) {
    tokens_.pop_back();
    --num_tokens_;
  }
}

TokenDelta OutputAssembler::TakeDelta() {
  TokenDelta delta;
  delta.text = text_.substr(0, static_cast<size_t>(released_bytes_));
  text_.erase(0, static_cast<size_t>(released_bytes_));
  taken_ += released_bytes_;
  for (; num_released_tokens_ > 0; --num_released_tokens_) {
    PendingToken& token = tokens_.front();
    delta.token_ids.push_back(token.id);
    if (token.logprob) delta.logprobs.push_back(*std::move(token.logprob));
    tokens_.pop_front();
  }
  released_bytes_ = 0;
  return delta;
}

}  // namespace tandem::gateway
