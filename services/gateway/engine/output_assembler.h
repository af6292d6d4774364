// From committed tokens to the text of the answer, and to its end.
#pragma once

#include <cstdint>
#include <deque>
#include <optional>
#include <string>
#include <vector>

#include "common/tokenizer/incremental_decoder.h"
#include "services/gateway/engine/request.h"

namespace tandem::gateway {

// Takes the tokens of one answer one by one, as they are committed; what was drafted and
// refused never gets here. Text that may be the start of a stop string is held back until
// it is known not to be, with its tokens. Not thread-safe.
class OutputAssembler {
 public:
  // Why the answer is over.
  struct End {
    FinishReason reason = FinishReason::kMaxTokens;
    std::string stop;
    int32_t stop_token_id = -1;
  };

  // `tokenizer` is borrowed. `context_full`: what it means that max_tokens are reached.
  OutputAssembler(const Tokenizer* tokenizer, StoppingParams stopping, int32_t max_tokens,
                  FinishReason reason_at_max_tokens);

  // Takes the next token; `logprob` may be null. The answer's end, if this is it: no
  // more tokens must come. A stop token is not part of the answer.
  //
  // Of two stop strings the one that is complete first ends it (the longer when both are
  // with the same byte): so the cut does not depend on how the text is cut into tokens.
  std::optional<End> Append(int32_t token_id, const TokenLogprob* logprob);

  // What may be sent now, and was not yet; everything that belongs to the answer once it
  // is over.
  TokenDelta TakeDelta();
  bool has_delta() const { return released_bytes_ > 0 || num_released_tokens_ > 0; }

  // Tokens that are part of the answer so far; tokens of a stop string are not, except the
  // one it begins in.
  int32_t num_tokens() const { return num_tokens_; }

 private:
  struct PendingToken {
    int32_t id;
    int64_t start, end;  // its text, in bytes from the start of the answer
    std::optional<TokenLogprob> logprob;
  };
  struct StopMatch {
    size_t stop_index;
    int64_t start, end;  // bytes from the start of the answer
  };

  std::optional<StopMatch> FindStop(int64_t from) const;
  int32_t HeldBack() const;
  void Release(int64_t up_to);
  void ReleaseAll();
  void CutAt(int64_t end);

  const Tokenizer* tokenizer_;
  StoppingParams stopping_;
  int32_t max_tokens_;
  FinishReason reason_at_max_tokens_;
  IncrementalDecoder decoder_;

  std::string text_;                 // from `taken_` on
  int64_t taken_ = 0;                // bytes of the answer that were taken
  int64_t released_bytes_ = 0;       // of text_
  std::deque<PendingToken> tokens_;  // not taken
  int32_t num_released_tokens_ = 0;  // of tokens_
  int32_t num_tokens_ = 0;
  int32_t num_seen_ = 0;
};

}  // namespace tandem::gateway
