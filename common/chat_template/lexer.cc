#include "common/chat_template/lexer.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_format.h"
#include "common/base/status_macros.h"
#include "common/chat_template/literals.h"
#include "common/chat_template/text.h"

namespace tandem::jinja {
namespace {

// One "\n" for each line end, and none at the end of the template.
std::string NormalizeNewlines(std::string_view source) {
  std::string normalized;
  normalized.reserve(source.size());
  for (size_t i = 0; i < source.size(); ++i) {
    if (source[i] == '\r') {
      i += i + 1 < source.size() && source[i + 1] == '\n' ? 1 : 0;
      normalized += '\n';
    } else {
      normalized += source[i];
    }
  }
  if (!normalized.empty() && normalized.back() == '\n') {
    normalized.pop_back();
  }
  return normalized;
}

class Lexer {
 public:
  explicit Lexer(std::string source) : source_(std::move(source)), rest_(source_) {}

  absl::StatusOr<std::vector<Token>> Run() {
    while (at_ < rest_.size()) {
      RETURN_IF_ERROR(LexOutside());
    }
    Push(TokenType::kEnd, "");
    return std::move(tokens_);
  }

 private:
  bool Looking(std::string_view at) const { return rest_.substr(at_).starts_with(at); }
  char Peek(size_t ahead = 0) const {
    return at_ + ahead < rest_.size() ? rest_[at_ + ahead] : '\0';
  }
  void Push(TokenType type, std::string_view text) {
    tokens_.push_back({.type = type, .text = std::string(text), .line = line_});
  }
  void Advance(size_t num_bytes) {
    line_ +=
        static_cast<int>(std::count(rest_.begin() + at_, rest_.begin() + at_ + num_bytes, '\n'));
    at_ += num_bytes;
  }
  void SkipSpace() {
    const Range kept = Strip(rest_.substr(at_), nullptr, {.left = true, .right = false});
    Advance(kept.begin);
  }

  // Text up to the next tag, the tag's opening, and what is inside.
  absl::Status LexOutside();
  absl::Status LexComment();
  absl::Status LexRaw(size_t opening_bytes);
  absl::Status LexInside(bool block);
  absl::Status LexToken();
  absl::Status LexOperator();

  // Text before a tag whose opening is followed by `sign`.
  void PushData(size_t begin, size_t end, char sign, bool variable);
  // What follows a tag's closing: after '-' all whitespace goes, otherwise one newline.
  void CloseTag(char sign, bool trim_newline);
  // Bytes from the opening to the end of `{% name %}` at `at`; 0 if that is not there.
  size_t MatchWordTag(size_t at, std::string_view name, char* opening_sign,
                      char* closing_sign) const;

  const std::string source_;
  const std::string_view rest_;  // all of source_
  size_t at_ = 0;
  int line_ = 1;
  bool line_starting_ = true;  // the last tag's closing took the line end with it
  std::string brackets_;       // closing ones that are due
  std::vector<Token> tokens_;
};

void Lexer::PushData(size_t begin, size_t end, char sign, bool variable) {
  std::string_view data = rest_.substr(begin, end - begin);
  if (sign == '-') {
    data = data.substr(0, Strip(data, nullptr, {.left = false, .right = true}).end);
  } else if (sign != '+' && !variable) {
    const size_t line = data.rfind('\n') + 1;  // npos + 1 is 0
    const std::string_view indent = data.substr(line);
    if ((line > 0 || line_starting_) &&
        Strip(indent, nullptr, {}).begin == static_cast<int64_t>(indent.size())) {
      data = data.substr(0, line);
    }
  }
  if (!data.empty()) {
    Push(TokenType::kData, data);
  }
}

void Lexer::CloseTag(char sign, bool trim_newline) {
  if (sign == '-') {
    SkipSpace();
  } else if (sign != '+' && trim_newline && Peek() == '\n') {
    Advance(1);
  }
  line_starting_ = at_ > 0 && rest_[at_ - 1] == '\n';
}

size_t Lexer::MatchWordTag(size_t at, std::string_view name, char* opening_sign,
                           char* closing_sign) const {
  const std::string_view tag = rest_.substr(at);
  size_t i = 2;
  const auto sign = [&tag, &i]() {
    return i < tag.size() && (tag[i] == '-' || tag[i] == '+') ? tag[i++] : '\0';
  };
  const auto skip_space = [&tag, &i]() {
    i += Strip(tag.substr(std::min(i, tag.size())), nullptr, {.left = true, .right = false}).begin;
  };
  if (!tag.starts_with("{%")) {
    return 0;
  }
  *opening_sign = sign();
  skip_space();
  if (!tag.substr(i).starts_with(name)) {
    return 0;
  }
  i += name.size();
  skip_space();
  *closing_sign = sign();
  return tag.substr(i).starts_with("%}") ? i + 2 : 0;
}

absl::Status Lexer::LexOutside() {
  const size_t begin = at_;
  size_t tag = rest_.find('{', at_);
  while (tag != rest_.npos &&
         (tag + 1 >= rest_.size() || std::string_view("{%#").find(rest_[tag + 1]) == rest_.npos)) {
    tag = rest_.find('{', tag + 1);
  }
  if (tag == rest_.npos) {
    Push(TokenType::kData, rest_.substr(at_));
    Advance(rest_.size() - at_);
    return absl::OkStatus();
  }
  const char kind = rest_[tag + 1];
  char sign = tag + 2 < rest_.size() ? rest_[tag + 2] : '\0';
  sign = sign == '-' || sign == '+' ? sign : '\0';
  PushData(begin, tag, sign, kind == '{');
  Advance(tag - at_);
  char closing = '\0';
  const size_t raw = MatchWordTag(at_, "raw", &sign, &closing);
  if (raw > 0 && closing != '+') {
    Advance(raw);
    return LexRaw(closing == '-' ? 1 : 0);
  }
  Advance(sign == '\0' ? 2 : 3);
  if (kind == '#') {
    return LexComment();
  }
  Push(kind == '%' ? TokenType::kBlockBegin : TokenType::kVariableBegin, "");
  return LexInside(kind == '%');
}

absl::Status Lexer::LexComment() {
  const size_t begin = at_;
  const size_t end = rest_.find("#}", at_);
  if (end == rest_.npos) {
    return SyntaxError(line_, "a comment has no end");
  }
  Advance(end + 2 - at_);
  CloseTag(end > begin ? rest_[end - 1] : '\0', /*trim_newline=*/true);
  return absl::OkStatus();
}

absl::Status Lexer::LexRaw(size_t strip_after_opening) {
  if (strip_after_opening != 0) {
    SkipSpace();
  }
  line_starting_ = at_ > 0 && rest_[at_ - 1] == '\n';
  const size_t begin = at_;
  for (size_t tag = rest_.find("{%", at_); tag != rest_.npos; tag = rest_.find("{%", tag + 1)) {
    char opening = '\0';
    char closing = '\0';
    const size_t num_bytes = MatchWordTag(tag, "endraw", &opening, &closing);
    if (num_bytes > 0) {
      PushData(begin, tag, opening, /*variable=*/false);
      Advance(tag + num_bytes - at_);
      CloseTag(closing, /*trim_newline=*/true);
      return absl::OkStatus();
    }
  }
  return SyntaxError(line_, "raw has no endraw");
}

absl::Status Lexer::LexInside(bool block) {
  const std::string_view end = block ? "%}" : "}}";
  while (at_ < rest_.size()) {
    const char sign = Peek() == '-' || (block && Peek() == '+') ? Peek() : '\0';
    const size_t sign_bytes = sign == '\0' ? 0 : 1;
    if (brackets_.empty() && rest_.substr(at_ + sign_bytes).starts_with(end)) {
      Push(block ? TokenType::kBlockEnd : TokenType::kVariableEnd, "");
      Advance(sign_bytes + 2);
      CloseTag(sign, /*trim_newline=*/block);
      return absl::OkStatus();
    }
    RETURN_IF_ERROR(LexToken());
  }
  return SyntaxError(line_, block ? "a block tag has no end" : "a variable tag has no end");
}

absl::Status Lexer::LexToken() {
  const char c = Peek();
  const Character character = CharacterAt(rest_, at_);
  if (IsSpace(character.code_point)) {
    SkipSpace();
    return absl::OkStatus();
  }
  if (c >= '0' && c <= '9') {
    ASSIGN_OR_RETURN(NumberLiteral number,
                     ReadNumber(rest_.substr(at_), at_ > 0 && rest_[at_ - 1] == '.', line_));
    tokens_.push_back({.type = number.is_real ? TokenType::kReal : TokenType::kInteger,
                       .integer = number.integer,
                       .real = number.real,
                       .line = line_});
    Advance(number.num_bytes);
    return absl::OkStatus();
  }
  const auto is_name = [](char letter) {
    return (letter >= 'a' && letter <= 'z') || (letter >= 'A' && letter <= 'Z') ||
           (letter >= '0' && letter <= '9') || letter == '_';
  };
  if (is_name(c)) {
    size_t length = 1;
    while (is_name(Peek(length))) {
      ++length;
    }
    Push(TokenType::kName, rest_.substr(at_, length));
    Advance(length);
    return absl::OkStatus();
  }
  if (c == '\'' || c == '"') {
    size_t length = 1;
    while (Peek(length) != c) {
      length += Peek(length) == '\\' ? 2 : 1;
      if (at_ + length >= rest_.size()) {
        return SyntaxError(line_, "a string has no end");
      }
    }
    ASSIGN_OR_RETURN(const std::string text, Unescape(rest_.substr(at_ + 1, length - 1), line_));
    Push(TokenType::kString, text);
    Advance(length + 1);
    return absl::OkStatus();
  }
  return LexOperator();
}

absl::Status Lexer::LexOperator() {
  constexpr std::string_view kTwo[] = {"//", "**", "==", "!=", ">=", "<="};
  constexpr std::string_view kOne = "+-/*%~[](){}><=.:|,;";
  size_t length = std::any_of(std::begin(kTwo), std::end(kTwo),
                              [this](std::string_view two) { return Looking(two); })
                      ? 2
                      : 1;
  const char c = Peek();
  if (length == 1 && kOne.find(c) == kOne.npos) {
    return SyntaxError(line_,
                       absl::StrFormat("unexpected character '%s'",
                                       rest_.substr(at_, CharacterAt(rest_, at_).num_bytes)));
  }
  if (c == '(' || c == '[' || c == '{') {
    brackets_ += c == '(' ? ')' : c == '[' ? ']' : '}';
  } else if (c == ')' || c == ']' || c == '}') {
    if (brackets_.empty() || brackets_.back() != c) {
      return SyntaxError(line_, absl::StrFormat("unexpected '%c'", c));
    }
    brackets_.pop_back();
  }
  Push(TokenType::kOperator, rest_.substr(at_, length));
  Advance(length);
  return absl::OkStatus();
}

}  // namespace

absl::Status SyntaxError(int line, std::string_view what) {
  return absl::InvalidArgumentError(absl::StrFormat("chat template line %d: %s", line, what));
}

absl::StatusOr<std::vector<Token>> Tokenize(std::string_view source) {
  return Lexer(NormalizeNewlines(source)).Run();
}

}  // namespace tandem::jinja
