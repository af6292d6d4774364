// Text to tokens and back.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "common/tokenizer/bpe_model.h"
#include "common/tokenizer/byte_span.h"
#include "common/tokenizer/special_matcher.h"
#include "common/tokenizer/tokenizer_spec.h"

namespace tandem {

// What becomes of a special token's text, "<|im_end|>", inside a text.
enum class SpecialTokens {
  kAsText,  // text like any other: what users write
  kParse,   // the token: what templates and trusted callers write
};

struct EncodeOptions {
  bool add_bos = false;  // FAILED_PRECONDITION where the vocabulary has none
  bool add_eos = false;
  SpecialTokens special = SpecialTokens::kAsText;
};

// Where decoding begins. Only SentencePiece vocabularies with a space prefix care: the
// space that Encode puts before a text is no part of it.
enum class DecodeStart {
  kText,          // at the start of a text: one leading space is dropped
  kContinuation,  // inside a text, as when a model continues a prompt: nothing is
};

// Immutable after Create; thread-safe.
class Tokenizer {
 public:
  // Longest text, also once invalid UTF-8 is replaced. Needs up to 30 times as much
  // memory while encoding if it is a single word.
  static constexpr int64_t kMaxTextBytes = int64_t{16} << 20;

  // INVALID_ARGUMENT saying what is wrong with the spec (ValidateTokenizerSpec), or
  // which merge names unknown tokens.
  static absl::StatusOr<std::unique_ptr<Tokenizer>> Create(TokenizerSpec spec);

  // Create(TokenizerSpecFromGguf(file)); keeps nothing of the file.
  static absl::StatusOr<std::unique_ptr<Tokenizer>> FromGguf(const GgufFile& file);
  // The same of the file or folder at `path`; errors also as OpenModel.
  static absl::StatusOr<std::unique_ptr<Tokenizer>> FromFile(const std::string& path);

  // The tokens of `text`. Bytes that are not UTF-8 count as U+FFFD, as if Python had
  // decoded them with errors="replace". With kParse the text of CONTROL and UNKNOWN
  // tokens becomes the token, the longest at each position; that of USER_DEFINED ones
  // always does. Time is n log n at worst. INVALID_ARGUMENT over kMaxTextBytes.
  absl::StatusOr<std::vector<int32_t>> Encode(std::string_view text,
                                              const EncodeOptions& options = {}) const;

  // As Encode, but no byte in `content_spans` becomes part of a CONTROL or UNKNOWN
  // token: for a chat prompt, whose structure is special and whose messages are text.
  // INVALID_ARGUMENT unless the spans are sorted, disjoint and inside the text.
  absl::StatusOr<std::vector<int32_t>> EncodeWithContent(std::string_view text,
                                                         absl::Span<const ByteSpan> content_spans,
                                                         const EncodeOptions& options = {}) const;

  // The bytes of one token, not necessarily UTF-8 by themselves; of a special one
  // nothing unless `render_special`. Nothing for an id that is not in the vocabulary.
  // Valid as long as the tokenizer.
  std::string_view TokenBytes(int32_t id, bool render_special) const;

  // The tokens' bytes in a row, not necessarily UTF-8 (see ReplaceInvalidUtf8).
  std::string Decode(absl::Span<const int32_t> ids, bool render_special,
                     DecodeStart start = DecodeStart::kText) const;

  int32_t vocab_size() const { return static_cast<int32_t>(types_.size()); }
  // Ids from here on are UNUSED, the padding of a file; vocab_size() where there is none.
  int32_t used_vocab_size() const { return used_vocab_size_; }
  // -1 where there is none.
  int32_t bos_id() const { return bos_id_; }
  int32_t eos_id() const { return eos_id_; }
  int32_t unk_id() const { return unk_id_; }
  int32_t pad_id() const { return pad_id_; }
  // What the model was trained with.
  bool add_bos() const { return add_bos_; }
  bool add_eos() const { return add_eos_; }
  // Whether a text's first space is dropped at DecodeStart::kText.
  bool add_space_prefix() const { return add_space_prefix_; }

  // The token's text as the vocabulary spells it; empty for an id outside of it.
  std::string_view TokenText(int32_t id) const;
  // The lowest id with that spelling, special or not; -1 if there is none.
  int32_t FindToken(std::string_view text) const;

  // Whether the token is no text: CONTROL, UNKNOWN, or UNUSED. Also those that files
  // call plain text though chat templates build on them (IsChatMarkerText).
  bool IsSpecial(int32_t id) const;
  // Whether a model that gives this token has finished: eos, eot, eom, and every
  // special token whose text is known to end a turn.
  bool IsEndOfGeneration(int32_t id) const;

 private:
  Tokenizer(TokenizerSpec spec, std::vector<TokenType> types, BpeModel model);

  bool InVocabulary(int32_t id) const { return id >= 0 && id < vocab_size(); }
  void IndexSpecial();
  void MarkEndOfGeneration(const TokenizerSpec& spec);
  absl::Status EncodeSegment(std::string_view segment, MergeScratch* scratch,
                             std::vector<int32_t>* ids) const;
  void EncodeByteLevel(std::string_view text, MergeScratch* scratch,
                       std::vector<int32_t>* ids) const;
  void EncodeSentencePiece(std::string_view text, MergeScratch* scratch,
                           std::vector<int32_t>* ids) const;

  TokenizerSpec::Model model_kind_;
  PreTokenizer pre_tokenizer_;
  int32_t bos_id_;
  int32_t eos_id_;
  int32_t unk_id_;
  int32_t pad_id_;
  bool add_bos_;
  bool add_eos_;
  bool add_space_prefix_;

  std::vector<std::string> texts_;  // by id, as spelled
  std::vector<std::string> bytes_;  // by id, as decoded
  std::vector<TokenType> types_;    // by id
  int32_t used_vocab_size_ = 0;
  std::vector<bool> ends_generation_;
  absl::flat_hash_map<std::string_view, int32_t> text_ids_;  // into texts_
  SpecialMatcher special_;
  BpeModel model_;
};

}  // namespace tandem
