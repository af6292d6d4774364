// From a piece of text to tokens: byte-level BPE and SentencePiece's BPE.
#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/hash/hash.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "common/tokenizer/merge_table.h"
#include "common/tokenizer/tokenizer_spec.h"

namespace tandem {

// U+2581, which SentencePiece writes for a space.
inline constexpr std::string_view kSentencePieceSpace = "\xE2\x96\x81";

// Lets maps of std::string be searched by std::string_view, which this absl's own
// hash does not take.
struct PieceHash {
  using is_transparent = void;
  size_t operator()(std::string_view piece) const { return absl::Hash<std::string_view>()(piece); }
};
using PieceMap = absl::flat_hash_map<std::string, int32_t, PieceHash, std::equal_to<>>;

// Immutable after Create; thread-safe.
class BpeModel {
 public:
  // Requires ValidateTokenizerSpec(spec) and one type for each token.
  // INVALID_ARGUMENT when a merge names a token that is not in the vocabulary.
  static absl::StatusOr<BpeModel> Create(const TokenizerSpec& spec,
                                         absl::Span<const TokenType> types);

  // Appends the tokens of `piece`, which is valid UTF-8; for SentencePiece its spaces
  // are kSentencePieceSpace.
  //
  // What the vocabulary cannot express: byte-level BPE drops bytes that are no token,
  // as Hugging Face and llama.cpp do (SmolLM2 lacks F1 to F3, the lead bytes of the
  // unassigned planes and most private use). SentencePiece gives the byte tokens of the
  // character, or else the unknown token, once for a run of such characters.
  void Encode(std::string_view piece, MergeScratch* scratch, std::vector<int32_t>* ids) const;

  // Whether a space can only begin a token, never follow another character in it:
  // then text may be cut before spaces without any change to its tokens.
  bool spaces_begin_tokens() const { return spaces_begin_tokens_; }

 private:
  class Builder;
  BpeModel() = default;

  void PushSymbols(std::string_view piece, MergeScratch* scratch) const;
  void Emit(int32_t symbol, size_t piece_begin, std::vector<int32_t>* ids) const;

  bool byte_level_ = true;
  bool spaces_begin_tokens_ = false;
  int32_t unk_id_ = -1;
  // Pieces that become one token: all of the vocabulary with ignore_merges, else those
  // that merging leads to. A short cut; the merges alone give the same.
  PieceMap whole_pieces_;
  MergeTable merges_;
  std::array<int32_t, 256> byte_ids_{};              // -1: no such token
  absl::flat_hash_map<char32_t, int32_t> char_ids_;  // SentencePiece only
};

}  // namespace tandem
