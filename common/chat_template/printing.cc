#include "common/chat_template/printing.h"

#include <charconv>
#include <cmath>
#include <string_view>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "common/base/status_macros.h"

namespace tandem::jinja {
namespace {

absl::Status CheckSize(const Text& out) {
  return out.size() <= kMaxStringBytes
             ? absl::OkStatus()
             : Fail(absl::StrCat("a string of more than ", kMaxStringBytes, " bytes"));
}

void AppendQuoted(const Text& text, Text& out) {
  const std::string_view bytes = text.bytes();
  const bool double_quotes = bytes.find('\'') != bytes.npos && bytes.find('"') == bytes.npos;
  const char quote = double_quotes ? '"' : '\'';
  std::string quoted(1, quote);
  for (int64_t at = 0; at < text.size();) {
    const Character character = CharacterAt(bytes, at);
    const int32_t c = character.code_point;
    const std::string_view original = bytes.substr(at, character.num_bytes);
    at += character.num_bytes;
    if (c == quote || c == '\\') {
      quoted += '\\';
      quoted += original;
    } else if (c == '\n' || c == '\r' || c == '\t') {
      quoted += c == '\n' ? "\\n" : c == '\r' ? "\\r" : "\\t";
    } else if (c < 0 || IsPrintable(c)) {
      quoted += original;
    } else {
      quoted += c < 0x100     ? absl::StrFormat("\\x%02x", c)
                : c < 0x10000 ? absl::StrFormat("\\u%04x", c)
                              : absl::StrFormat("\\U%08x", c);
    }
  }
  quoted += quote;
  out.Append(quoted, text.has_content());
}

absl::Status AppendReprOfList(Runtime& runtime, const List& list, Text& out) {
  const bool tuple = list.flavor == List::Flavor::kTuple;
  out.Append(tuple ? "(" : "[");
  for (size_t i = 0; i < list.items.size(); ++i) {
    out.Append(i > 0 ? ", " : "");
    RETURN_IF_ERROR(AppendRepr(runtime, list.items[i], out));
  }
  out.Append(tuple ? (list.items.size() == 1 ? ",)" : ")") : "]");
  return absl::OkStatus();
}

absl::Status AppendReprOfDict(Runtime& runtime, const Dict& dict, Text& out) {
  out.Append("{");
  bool first = true;
  for (const auto& [key, value] : dict.items) {
    out.Append(first ? "" : ", ");
    first = false;
    RETURN_IF_ERROR(AppendRepr(runtime, key, out));
    out.Append(": ");
    RETURN_IF_ERROR(AppendRepr(runtime, value, out));
  }
  out.Append("}");
  return absl::OkStatus();
}

}  // namespace

std::string FormatReal(double number) {
  if (!std::isfinite(number)) {
    return std::isnan(number) ? "nan" : number > 0 ? "inf" : "-inf";
  }
  char buffer[64];
  const auto end =
      std::to_chars(buffer, buffer + sizeof(buffer), number, std::chars_format::scientific).ptr;
  const std::string_view text(buffer, end - buffer);
  const size_t exponent_at = text.find('e');
  const int exponent = std::stoi(std::string(text.substr(exponent_at + 1)));
  if (exponent < -4 || exponent >= 16) {
    return std::string(text);  // as Python: at least two digits of exponent
  }
  std::string fixed(
      buffer, std::to_chars(buffer, buffer + sizeof(buffer), number, std::chars_format::fixed).ptr);
  return fixed.find('.') == fixed.npos ? fixed + ".0" : fixed;
}

absl::Status AppendString(Runtime& runtime, const Value& value, Text& out) {
  if (const Text* text = value.text()) {
    RETURN_IF_ERROR(runtime.budget.ChargeBytes(text->size()));
    out.Append(*text);
    return CheckSize(out);
  }
  if (value.is_undefined()) {
    return absl::OkStatus();
  }
  return AppendRepr(runtime, value, out);
}

absl::Status AppendRepr(Runtime& runtime, const Value& value, Text& out) {
  RETURN_IF_ERROR(runtime.budget.Charge(1));
  if (const Text* text = value.text()) {
    RETURN_IF_ERROR(runtime.budget.ChargeBytes(text->size()));
    AppendQuoted(*text, out);
  } else if (value.is_none()) {
    out.Append("None");
  } else if (value.boolean()) {
    out.Append(*value.boolean() ? "True" : "False");
  } else if (value.integer()) {
    out.Append(absl::StrCat(*value.integer()));
  } else if (value.real()) {
    out.Append(FormatReal(*value.real()));
  } else if (value.list() && value.list()->flavor != List::Flavor::kGenerator) {
    RETURN_IF_ERROR(AppendReprOfList(runtime, *value.list(), out));
  } else if (value.dict()) {
    RETURN_IF_ERROR(AppendReprOfDict(runtime, *value.dict(), out));
  } else if (value.is_undefined()) {
    out.Append("Undefined");
  } else {
    return WrongType(value, "cannot be printed");
  }
  return CheckSize(out);
}

absl::StatusOr<Text> ToText(Runtime& runtime, const Value& value) {
  Text text;
  RETURN_IF_ERROR(AppendString(runtime, value, text));
  return text;
}

}  // namespace tandem::jinja
