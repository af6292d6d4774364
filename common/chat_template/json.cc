// AppendJson.
#include <algorithm>
#include <cmath>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "common/base/status_macros.h"
#include "common/chat_template/printing.h"

namespace tandem::jinja {
namespace {

std::string Quoted(const std::string& bytes, bool ensure_ascii) {
  std::string quoted = "\"";
  for (int64_t at = 0; at < static_cast<int64_t>(bytes.size());) {
    const Character character = CharacterAt(bytes, at);
    const int32_t c = character.code_point;
    constexpr std::string_view kShort = "\b\f\n\r\t\"\\";
    constexpr std::string_view kLetters = "bfnrt\"\\";
    const size_t letter = c >= 0 && c < 0x80 ? kShort.find(static_cast<char>(c)) : kShort.npos;
    if (letter != kShort.npos) {
      quoted += '\\';
      quoted += kLetters[letter];
    } else if (c >= 0x10000 && ensure_ascii) {
      quoted += absl::StrFormat("\\u%04x\\u%04x", 0xd800 + ((c - 0x10000) >> 10),
                                0xdc00 + ((c - 0x10000) & 0x3ff));
    } else if ((c >= 0 && c < 0x20) || (c > 0x7e && ensure_ascii)) {
      quoted += absl::StrFormat("\\u%04x", c);
    } else {
      quoted.append(bytes, at, character.num_bytes);
    }
    at += character.num_bytes;
  }
  return quoted + '"';
}

// Writes one value, its parts indented by `level`.
class JsonWriter {
 public:
  JsonWriter(Runtime& runtime, const JsonOptions& options, Text& out)
      : runtime_(runtime), options_(options), out_(out) {
    const bool lines = options.indent.has_value();
    item_separator_ = !options.item_separator.empty() ? options.item_separator : lines ? "," : ", ";
    key_separator_ = !options.key_separator.empty() ? options.key_separator : ": ";
  }

  absl::Status Write(const Value& value, int level) {
    RETURN_IF_ERROR(runtime_.budget.Charge(1));
    if (out_.size() > kMaxStringBytes) {
      return Fail(absl::StrCat("JSON of more than ", kMaxStringBytes, " bytes"));
    }
    if (const Text* text = value.text()) {
      RETURN_IF_ERROR(runtime_.budget.ChargeBytes(text->size()));
      out_.Append(Quoted(text->bytes(), options_.ensure_ascii), text->has_content());
      return absl::OkStatus();
    }
    if (value.list() && value.list()->flavor != List::Flavor::kGenerator) {
      return WriteList(*value.list(), level);
    }
    if (value.dict()) {
      return WriteDict(*value.dict(), level);
    }
    ASSIGN_OR_RETURN(const std::string scalar, Scalar(value));
    out_.Append(scalar);
    return absl::OkStatus();
  }

 private:
  static absl::StatusOr<std::string> Scalar(const Value& value) {
    if (value.is_none()) {
      return std::string("null");
    }
    if (value.boolean()) {
      return std::string(*value.boolean() ? "true" : "false");
    }
    if (value.integer()) {
      return absl::StrCat(*value.integer());
    }
    if (value.real()) {
      const double number = *value.real();
      return std::isnan(number)    ? std::string("NaN")
             : !std::isinf(number) ? FormatReal(number)
             : number > 0          ? std::string("Infinity")
                                   : std::string("-Infinity");
    }
    return Fail(absl::StrCat("object of type ", value.TypeName(), " has no JSON form"));
  }

  void NewLine(int level) {
    if (options_.indent.has_value()) {
      out_.Append("\n");
      for (int i = 0; i < level; ++i) {
        out_.Append(*options_.indent);
      }
    }
  }

  absl::Status WriteList(const List& list, int level) {
    out_.Append("[");
    for (size_t i = 0; i < list.items.size(); ++i) {
      out_.Append(i > 0 ? item_separator_ : "");
      NewLine(level + 1);
      RETURN_IF_ERROR(Write(list.items[i], level + 1));
    }
    if (!list.items.empty()) {
      NewLine(level);
    }
    out_.Append("]");
    return absl::OkStatus();
  }

  absl::Status WriteDict(const Dict& dict, int level) {
    std::vector<std::pair<Text, const Value*>> items;
    for (const auto& [key, value] : dict.items) {
      if (key.text()) {
        items.emplace_back(*key.text(), &value);
      } else {
        ASSIGN_OR_RETURN(const std::string name, Scalar(key));
        items.emplace_back(Text(name), &value);
      }
    }
    if (options_.sort_keys) {
      std::stable_sort(items.begin(), items.end(), [](const auto& a, const auto& b) {
        return a.first.bytes() < b.first.bytes();
      });
    }
    out_.Append("{");
    bool first = true;
    for (const auto& [name, value] : items) {
      out_.Append(first ? "" : item_separator_);
      first = false;
      NewLine(level + 1);
      RETURN_IF_ERROR(runtime_.budget.ChargeBytes(name.size()));
      out_.Append(Quoted(name.bytes(), options_.ensure_ascii), name.has_content());
      out_.Append(key_separator_);
      RETURN_IF_ERROR(Write(*value, level + 1));
    }
    if (!items.empty()) {
      NewLine(level);
    }
    out_.Append("}");
    return absl::OkStatus();
  }

  Runtime& runtime_;
  const JsonOptions& options_;
  Text& out_;
  std::string item_separator_;
  std::string key_separator_;
};

}  // namespace

absl::Status AppendJson(Runtime& runtime, const Value& value, const JsonOptions& options,
                        Text& out) {
  return JsonWriter(runtime, options, out).Write(value, /*level=*/0);
}

}  // namespace tandem::jinja
