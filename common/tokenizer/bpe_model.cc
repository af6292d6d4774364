#include "common/tokenizer/bpe_model.h"

#include <algorithm>
#include <functional>

#include "absl/strings/str_cat.h"
#include "common/base/status_macros.h"
#include "common/tokenizer/byte_alphabet.h"
#include "common/tokenizer/utf8.h"

namespace tandem {
namespace {

// Whether text may be made of tokens of that type.
bool IsText(TokenType type) {
  return type == TokenType::kNormal || type == TokenType::kUndefined ||
         type == TokenType::kUserDefined;
}

bool IsSpelledInAlphabet(TokenType type) {
  return type == TokenType::kNormal || type == TokenType::kUndefined;
}

// A character without a token of its own is a symbol below zero until it is merged.
int32_t SymbolOfUnknown(char32_t code_point) { return -1 - static_cast<int32_t>(code_point); }
char32_t UnknownOfSymbol(int32_t symbol) { return static_cast<char32_t>(-1 - symbol); }

size_t FirstCharLength(std::string_view text) {
  return static_cast<size_t>(DecodeUtf8(text).length);
}

// Whether a space stands behind another character.
bool HasInnerSpace(std::string_view text) {
  const size_t word = text.find_first_not_of(kSentencePieceSpace);
  return word != std::string_view::npos &&
         text.find(kSentencePieceSpace, word) != std::string_view::npos;
}

}  // namespace

class BpeModel::Builder {
 public:
  Builder(const TokenizerSpec& spec, absl::Span<const TokenType> types)
      : spec_(spec), types_(types) {}

  absl::StatusOr<BpeModel> Build() {
    model_.byte_level_ = spec_.model == TokenizerSpec::Model::kByteLevelBpe;
    model_.unk_id_ = spec_.unk_id;
    model_.byte_ids_.fill(-1);
    IndexTokens();
    if (model_.byte_level_) {
      IndexBytes();
      RETURN_IF_ERROR(AddListedMerges());
    } else {
      IndexChars();
      AddScoredMerges();
    }
    FindWholePieces();
    return std::move(model_);
  }

 private:
  TokenType TypeOf(int32_t id) const { return types_[static_cast<size_t>(id)]; }
  int32_t num_tokens() const { return static_cast<int32_t>(spec_.tokens.size()); }

  // Of tokens with one text the lowest id stays; text tokens come before special ones.
  void IndexTokens() {
    piece_ids_.reserve(spec_.tokens.size());
    for (const bool want_text : {true, false}) {
      for (int32_t id = 0; id < num_tokens(); ++id) {
        const std::string& text = spec_.tokens[static_cast<size_t>(id)];
        if (text.empty() || TypeOf(id) == TokenType::kByte) continue;
        if (IsText(TypeOf(id)) != want_text) continue;
        if (!model_.byte_level_ || !IsSpelledInAlphabet(TypeOf(id))) {
          piece_ids_.try_emplace(text, id);
        } else if (const auto bytes = BytesOfAlphabet(text); bytes.has_value()) {
          piece_ids_.try_emplace(*bytes, id);
        }
      }
    }
  }

  // The id of a text that merging may give; -1 if there is none.
  int32_t TextId(std::string_view piece) const {
    const auto it = piece_ids_.find(piece);
    return it == piece_ids_.end() || !IsText(TypeOf(it->second)) ? -1 : it->second;
  }

  void IndexBytes() {
    for (int32_t byte = 0; byte < 256; ++byte) {
      const char text = static_cast<char>(byte);
      model_.byte_ids_[static_cast<size_t>(byte)] = TextId({&text, 1});
    }
  }

  absl::Status AddListedMerges() {
    model_.merges_.Reserve(static_cast<int64_t>(spec_.merges.size()));
    for (size_t rank = 0; rank < spec_.merges.size(); ++rank) {
      const std::string_view merge = spec_.merges[rank];
      const size_t space = merge.find(' ');
      if (space == 0 || space >= merge.size() - 1 || !IsValidUtf8(merge)) {
        return absl::InvalidArgumentError(
            absl::StrCat("merge ", rank, " is not two tokens with a space between"));
      }
      const auto left = BytesOfAlphabet(merge.substr(0, space));
      const auto right = BytesOfAlphabet(merge.substr(space + 1));
      if (!left.has_value() || !right.has_value()) return UnknownInMerge(rank);
      const auto left_id = piece_ids_.find(*left);
      const auto right_id = piece_ids_.find(*right);
      const auto merged_id = piece_ids_.find(*left + *right);
      const auto end = piece_ids_.end();
      if (left_id == end || right_id == end || merged_id == end) return UnknownInMerge(rank);
      // Special tokens are not made from text.
      if (!IsText(TypeOf(left_id->second)) || !IsText(TypeOf(right_id->second)) ||
          !IsText(TypeOf(merged_id->second))) {
        continue;
      }
      model_.merges_.Add(left_id->second, right_id->second, static_cast<int32_t>(rank),
                         merged_id->second);
    }
    return absl::OkStatus();
  }

  absl::Status UnknownInMerge(size_t rank) const {
    return absl::InvalidArgumentError(absl::StrCat(
        "merge ", rank, ", \"", spec_.merges[rank],
        "\", names or makes a token that is not in the vocabulary of ", spec_.tokens.size()));
  }

  void IndexChars() {
    model_.spaces_begin_tokens_ = true;
    for (int32_t id = 0; id < num_tokens(); ++id) {
      const std::string& text = spec_.tokens[static_cast<size_t>(id)];
      if (TypeOf(id) == TokenType::kByte) {
        int32_t& byte_id = model_.byte_ids_[static_cast<size_t>(ParseByteToken(text))];
        if (byte_id < 0) byte_id = id;
      } else if (IsText(TypeOf(id)) && !text.empty()) {
        if (HasInnerSpace(text)) model_.spaces_begin_tokens_ = false;
        const Utf8Step step = DecodeUtf8(text);
        if (static_cast<size_t>(step.length) == text.size()) {
          model_.char_ids_.try_emplace(step.code_point, id);
        }
      }
    }
  }

  // SentencePiece joins two neighbours when their text is a token, best score first:
  // that is one merge for each way to cut a token in two.
  void AddScoredMerges() {
    std::vector<float> scores = spec_.scores;
    std::sort(scores.begin(), scores.end(), std::greater<>());
    scores.erase(std::unique(scores.begin(), scores.end()), scores.end());
    for (const auto& [text, id] : piece_ids_) {
      if (!IsText(TypeOf(id))) continue;
      const auto rank = std::lower_bound(scores.begin(), scores.end(),
                                         spec_.scores[static_cast<size_t>(id)], std::greater<>());
      for (size_t cut = FirstCharLength(text); cut < text.size();
           cut += FirstCharLength(std::string_view(text).substr(cut))) {
        int32_t left = 0;
        int32_t right = 0;
        if (!SymbolOf(std::string_view(text).substr(0, cut), &left)) continue;
        if (!SymbolOf(std::string_view(text).substr(cut), &right)) continue;
        model_.merges_.Add(left, right, static_cast<int32_t>(rank - scores.begin()), id);
      }
    }
  }

  // A part of a token as it appears among the symbols: a token, or one character.
  bool SymbolOf(std::string_view part, int32_t* symbol) const {
    *symbol = TextId(part);
    if (*symbol >= 0) return true;
    const Utf8Step step = DecodeUtf8(part);
    *symbol = SymbolOfUnknown(step.code_point);
    return static_cast<size_t>(step.length) == part.size();
  }

  void FindWholePieces() {
    MergeScratch scratch;
    std::vector<int32_t> ids;
    for (const auto& [piece, id] : piece_ids_) {
      if (!IsText(TypeOf(id))) continue;
      if (!spec_.ignore_merges) {
        ids.clear();
        model_.Encode(piece, &scratch, &ids);
        if (ids.size() != 1 || ids[0] != id) continue;
      }
      whole_pieces_.try_emplace(piece, id);
    }
    model_.whole_pieces_ = std::move(whole_pieces_);
  }

  const TokenizerSpec& spec_;
  absl::Span<const TokenType> types_;
  BpeModel model_;
  PieceMap piece_ids_;
  PieceMap whole_pieces_;
};

absl::StatusOr<BpeModel> BpeModel::Create(const TokenizerSpec& spec,
                                          absl::Span<const TokenType> types) {
  return Builder(spec, types).Build();
}

void BpeModel::PushSymbols(std::string_view piece, MergeScratch* scratch) const {
  if (byte_level_) {
    for (const char byte : piece) {
      const int32_t id = byte_ids_[static_cast<uint8_t>(byte)];
      if (id >= 0) scratch->Push(id);
    }
    return;
  }
  while (!piece.empty()) {
    const Utf8Step step = DecodeUtf8(piece);
    const auto it = char_ids_.find(step.code_point);
    scratch->Push(it == char_ids_.end() ? SymbolOfUnknown(step.code_point) : it->second);
    piece.remove_prefix(static_cast<size_t>(step.length));
  }
}

void BpeModel::Emit(int32_t symbol, size_t piece_begin, std::vector<int32_t>* ids) const {
  if (symbol >= 0) {
    ids->push_back(symbol);
    return;
  }
  std::string bytes;
  AppendUtf8(UnknownOfSymbol(symbol), &bytes);
  const auto id_of = [this](char byte) { return byte_ids_[static_cast<uint8_t>(byte)]; };
  if (std::all_of(bytes.begin(), bytes.end(), [&](char byte) { return id_of(byte) >= 0; })) {
    for (const char byte : bytes) ids->push_back(id_of(byte));
  } else if (unk_id_ >= 0 && (ids->size() == piece_begin || ids->back() != unk_id_)) {
    ids->push_back(unk_id_);
  }
}

void BpeModel::Encode(std::string_view piece, MergeScratch* scratch,
                      std::vector<int32_t>* ids) const {
  if (const auto it = whole_pieces_.find(piece); it != whole_pieces_.end()) {
    ids->push_back(it->second);
    return;
  }
  scratch->Clear();
  PushSymbols(piece, scratch);
  merges_.Apply(scratch);
  const size_t piece_begin = ids->size();
  scratch->ForEach([&](int32_t symbol) { Emit(symbol, piece_begin, ids); });
}

}  // namespace tandem
