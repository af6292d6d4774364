// What a tokenizer is made of, and where it is read from.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/gguf/gguf.h"
#include "common/tokenizer/pre_tokenizer.h"

namespace tandem {

// As GGUF numbers them.
enum class TokenType : int8_t {
  kUndefined = 0,  // taken for kNormal
  kNormal = 1,
  kUnknown = 2,      // stands for what the vocabulary cannot express
  kControl = 3,      // special: structure of the text, never text itself
  kUserDefined = 4,  // text that is a token wherever it occurs
  kUnused = 5,       // never made from text, gives no text
  kByte = 6,         // "<0x00>" to "<0xFF>": one byte
};

// Filled from a file, or by hand in tests.
struct TokenizerSpec {
  enum class Model : int8_t {
    kByteLevelBpe,      // GPT-2's: tokens spelled in its alphabet of 256 characters
    kSentencePieceBpe,  // Llama 2's: spaces are U+2581, the scores order the merges
  };
  // Longer ones are refused; the longest of Llama 3 has 256 bytes (128 spaces).
  static constexpr int64_t kMaxTokenBytes = 1024;
  static constexpr int64_t kMaxTokens = int64_t{1} << 21;
  // Of all texts together: preparing takes time for each way to cut each token in two.
  // Llama 3 has 1 MiB.
  static constexpr int64_t kMaxVocabularyBytes = int64_t{16} << 20;

  Model model = Model::kByteLevelBpe;
  PreTokenizer pre_tokenizer = PreTokenizer::kGpt2;  // byte-level BPE only
  // A piece that is in the vocabulary is that token, whatever the merges say. Llama 3.
  bool ignore_merges = false;

  std::vector<std::string> tokens;  // UTF-8, by id
  std::vector<float> scores;        // by id, higher is merged first; SentencePiece only
  std::vector<TokenType> types;     // by id; empty: all kNormal
  std::vector<std::string> merges;  // "left right", most important first; byte-level only

  // -1: there is none.
  int32_t bos_id = -1;
  int32_t eos_id = -1;
  int32_t eot_id = -1;  // ends a turn of a chat
  int32_t eom_id = -1;  // ends a message that calls a tool
  int32_t unk_id = -1;
  int32_t pad_id = -1;

  // What the model was trained with; EncodeOptions decide what is done.
  bool add_bos = false;
  bool add_eos = false;
  bool add_space_prefix = false;  // SentencePiece only
};

// Reads tokenizer.ggml.*; works for files without tensors. INVALID_ARGUMENT naming the
// key and the values where a field is missing, of a wrong type or out of range; also
// for a model or pre-tokenizer that is not known, with the list of those that are.
absl::StatusOr<TokenizerSpec> TokenizerSpecFromGguf(const GgufFile& file);

// INVALID_ARGUMENT unless a tokenizer can be made of it: sizes agree, ids are in range,
// texts are UTF-8, byte tokens are "<0x00>" to "<0xFF>", and something ends a turn.
absl::Status ValidateTokenizerSpec(const TokenizerSpec& spec);

// The value of a byte token's text, "<0x0A>"; -1 if it is none.
int32_t ParseByteToken(std::string_view text);

// Whether a token of that text ends a turn in every model that has it: "<|im_end|>"...
bool IsEndOfTurnText(std::string_view text);

// Whether a token of that text is chat structure even if the file does not say so.
// Taking it from user text would let a user write the other side's turns.
bool IsChatMarkerText(std::string_view text);

}  // namespace tandem
