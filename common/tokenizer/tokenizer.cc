#include "common/tokenizer/tokenizer.h"

#include <algorithm>
#include <utility>

#include "absl/memory/memory.h"
#include "absl/strings/str_cat.h"
#include "common/base/status_macros.h"
#include "common/safetensors/checkpoint.h"
#include "common/tokenizer/byte_alphabet.h"
#include "common/tokenizer/utf8.h"

namespace tandem {
namespace {

// The types the file should have given: text that is chat structure, or that begins or
// ends texts, is control whatever the file calls it.
std::vector<TokenType> EffectiveTypes(const TokenizerSpec& spec) {
  std::vector<TokenType> types = spec.types;
  types.resize(spec.tokens.size(), TokenType::kNormal);
  for (size_t id = 0; id < types.size(); ++id) {
    if (IsChatMarkerText(spec.tokens[id])) types[id] = TokenType::kControl;
  }
  for (const int32_t id : {spec.bos_id, spec.eos_id, spec.eot_id, spec.eom_id}) {
    if (id >= 0) types[static_cast<size_t>(id)] = TokenType::kControl;
  }
  return types;
}

std::string WithSpaces(std::string_view text) {
  std::string result;
  for (size_t space = text.find(kSentencePieceSpace); space != std::string_view::npos;
       space = text.find(kSentencePieceSpace)) {
    result.append(text.substr(0, space)).push_back(' ');
    text.remove_prefix(space + kSentencePieceSpace.size());
  }
  return result.append(text);
}

std::string DecodedBytes(const TokenizerSpec& spec, TokenType type, const std::string& text) {
  if (type == TokenType::kByte) return std::string(1, static_cast<char>(ParseByteToken(text)));
  if (type != TokenType::kNormal && type != TokenType::kUndefined) return text;
  if (spec.model == TokenizerSpec::Model::kSentencePieceBpe) return WithSpaces(text);
  // A token that is not spelled in the alphabet was added by hand: literal text.
  return BytesOfAlphabet(text).value_or(text);
}

absl::Status ValidateSpans(absl::Span<const ByteSpan> spans, std::string_view text) {
  int64_t last_end = 0;
  for (const ByteSpan& span : spans) {
    if (span.begin < last_end || span.end < span.begin ||
        span.end > static_cast<int64_t>(text.size())) {
      return absl::InvalidArgumentError(
          absl::StrCat("content span [", span.begin, ", ", span.end, ") of a text of ", text.size(),
                       " bytes: spans must be sorted, disjoint and inside the text"));
    }
    last_end = span.end;
  }
  return absl::OkStatus();
}

absl::Status ValidateLength(size_t size) {
  if (static_cast<int64_t>(size) <= Tokenizer::kMaxTextBytes) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat("the text has ", size, " bytes (U+FFFD for each that is not UTF-8), at most ",
                   Tokenizer::kMaxTextBytes, " can be encoded at once"));
}

}  // namespace

absl::StatusOr<std::unique_ptr<Tokenizer>> Tokenizer::Create(TokenizerSpec spec) {
  RETURN_IF_ERROR(ValidateTokenizerSpec(spec));
  std::vector<TokenType> types = EffectiveTypes(spec);
  ASSIGN_OR_RETURN(BpeModel model, BpeModel::Create(spec, types));
  return absl::WrapUnique(new Tokenizer(std::move(spec), std::move(types), std::move(model)));
}

absl::StatusOr<std::unique_ptr<Tokenizer>> Tokenizer::FromGguf(const GgufFile& file) {
  ASSIGN_OR_RETURN(TokenizerSpec spec, TokenizerSpecFromGguf(file));
  return Create(std::move(spec));
}

absl::StatusOr<std::unique_ptr<Tokenizer>> Tokenizer::FromFile(const std::string& path) {
  ASSIGN_OR_RETURN(const std::unique_ptr<GgufFile> file, OpenModel(path));
  return FromGguf(*file);
}

Tokenizer::Tokenizer(TokenizerSpec spec, std::vector<TokenType> types, BpeModel model)
    : model_kind_(spec.model),
      pre_tokenizer_(spec.pre_tokenizer),
      bos_id_(spec.bos_id),
      eos_id_(spec.eos_id),
      unk_id_(spec.unk_id),
      pad_id_(spec.pad_id),
      add_bos_(spec.add_bos),
      add_eos_(spec.add_eos),
      add_space_prefix_(spec.add_space_prefix &&
                        spec.model == TokenizerSpec::Model::kSentencePieceBpe),
      types_(std::move(types)),
      model_(std::move(model)) {
  used_vocab_size_ = vocab_size();
  while (used_vocab_size_ > 0 && types_[used_vocab_size_ - 1] == TokenType::kUnused) {
    --used_vocab_size_;
  }
  bytes_.reserve(types_.size());
  for (size_t id = 0; id < types_.size(); ++id) {
    bytes_.push_back(DecodedBytes(spec, types_[id], spec.tokens[id]));
  }
  texts_ = std::move(spec.tokens);
  for (size_t id = 0; id < texts_.size(); ++id) {
    text_ids_.try_emplace(texts_[id], static_cast<int32_t>(id));
  }
  IndexSpecial();
  MarkEndOfGeneration(spec);
}

void Tokenizer::IndexSpecial() {
  for (int32_t id = 0; id < vocab_size(); ++id) {
    const TokenType type = types_[static_cast<size_t>(id)];
    const bool user_defined = type == TokenType::kUserDefined;
    if (user_defined || type == TokenType::kControl || type == TokenType::kUnknown) {
      special_.Add(TokenText(id), id, /*in_content=*/user_defined);
    }
  }
}

void Tokenizer::MarkEndOfGeneration(const TokenizerSpec& spec) {
  ends_generation_.resize(types_.size(), false);
  for (int32_t id = 0; id < vocab_size(); ++id) {
    const bool named = id == spec.eos_id || id == spec.eot_id || id == spec.eom_id;
    const bool known = IsEndOfTurnText(TokenText(id));
    if (!named && !known) continue;
    ends_generation_[static_cast<size_t>(id)] = true;
    if (eos_id_ < 0) eos_id_ = id;
  }
}

absl::StatusOr<std::vector<int32_t>> Tokenizer::Encode(std::string_view text,
                                                       const EncodeOptions& options) const {
  return EncodeWithContent(text, {}, options);
}

absl::StatusOr<std::vector<int32_t>> Tokenizer::EncodeWithContent(
    std::string_view text, absl::Span<const ByteSpan> content_spans,
    const EncodeOptions& options) const {
  RETURN_IF_ERROR(ValidateLength(text.size()));
  RETURN_IF_ERROR(ValidateSpans(content_spans, text));
  if ((options.add_bos && bos_id_ < 0) || (options.add_eos && eos_id_ < 0)) {
    return absl::FailedPreconditionError("the vocabulary has no bos or eos token to add");
  }
  const ByteSpan everything = {.begin = 0, .end = static_cast<int64_t>(text.size())};
  if (options.special == SpecialTokens::kAsText) content_spans = {&everything, 1};

  std::vector<int32_t> ids;
  MergeScratch scratch;
  if (options.add_bos) ids.push_back(bos_id_);
  int64_t at = 0;
  for (const SpecialMatcher::Match& match : special_.FindAll(text, content_spans)) {
    RETURN_IF_ERROR(EncodeSegment(
        text.substr(static_cast<size_t>(at), static_cast<size_t>(match.span.begin - at)), &scratch,
        &ids));
    ids.push_back(match.id);
    at = match.span.end;
  }
  RETURN_IF_ERROR(EncodeSegment(text.substr(static_cast<size_t>(at)), &scratch, &ids));
  if (options.add_eos) ids.push_back(eos_id_);
  return ids;
}

// Text between two special tokens; they never are part of what a merge sees.
absl::Status Tokenizer::EncodeSegment(std::string_view segment, MergeScratch* scratch,
                                      std::vector<int32_t>* ids) const {
  if (segment.empty()) return absl::OkStatus();
  std::string replaced;
  if (!IsValidUtf8(segment)) {
    replaced = ReplaceInvalidUtf8(segment);
    RETURN_IF_ERROR(ValidateLength(replaced.size()));
    segment = replaced;
  }
  if (model_kind_ == TokenizerSpec::Model::kByteLevelBpe) {
    EncodeByteLevel(segment, scratch, ids);
  } else {
    EncodeSentencePiece(segment, scratch, ids);
  }
  return absl::OkStatus();
}

void Tokenizer::EncodeByteLevel(std::string_view text, MergeScratch* scratch,
                                std::vector<int32_t>* ids) const {
  while (!text.empty()) {
    const size_t length = FirstPieceLength(pre_tokenizer_, text);
    model_.Encode(text.substr(0, length), scratch, ids);
    text.remove_prefix(length);
  }
}

void Tokenizer::EncodeSentencePiece(std::string_view text, MergeScratch* scratch,
                                    std::vector<int32_t>* ids) const {
  std::string escaped;
  escaped.reserve(text.size() + text.size() / 2);
  if (add_space_prefix_) escaped.append(kSentencePieceSpace);
  for (const char c : text) {
    if (c == ' ') {
      escaped.append(kSentencePieceSpace);
    } else {
      escaped.push_back(c);
    }
  }
  if (!model_.spaces_begin_tokens()) {
    model_.Encode(escaped, scratch, ids);
    return;
  }
  std::string_view rest = escaped;
  while (!rest.empty()) {
    size_t word = 0;
    while (rest.substr(word, kSentencePieceSpace.size()) == kSentencePieceSpace) {
      word += kSentencePieceSpace.size();
    }
    const size_t end = std::min(rest.find(kSentencePieceSpace, word), rest.size());
    model_.Encode(rest.substr(0, end), scratch, ids);
    rest.remove_prefix(end);
  }
}

std::string_view Tokenizer::TokenText(int32_t id) const {
  return InVocabulary(id) ? std::string_view(texts_[static_cast<size_t>(id)]) : std::string_view();
}

int32_t Tokenizer::FindToken(std::string_view text) const {
  const auto it = text_ids_.find(text);
  return it == text_ids_.end() ? -1 : it->second;
}

bool Tokenizer::IsSpecial(int32_t id) const {
  if (!InVocabulary(id)) return false;
  const TokenType type = types_[static_cast<size_t>(id)];
  return type == TokenType::kControl || type == TokenType::kUnknown || type == TokenType::kUnused;
}

bool Tokenizer::IsEndOfGeneration(int32_t id) const {
  return InVocabulary(id) && ends_generation_[static_cast<size_t>(id)];
}

std::string_view Tokenizer::TokenBytes(int32_t id, bool render_special) const {
  if (!InVocabulary(id) || (IsSpecial(id) && !render_special)) return {};
  return bytes_[static_cast<size_t>(id)];
}

std::string Tokenizer::Decode(absl::Span<const int32_t> ids, bool render_special,
                              DecodeStart start) const {
  std::string text;
  for (const int32_t id : ids) text.append(TokenBytes(id, render_special));
  if (start == DecodeStart::kText && add_space_prefix_ && !text.empty() && text[0] == ' ') {
    text.erase(0, 1);
  }
  return text;
}

}  // namespace tandem
