#include "common/chat_template/string_methods.h"

#include <string.h>

#include <algorithm>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "common/base/status_macros.h"
#include "common/chat_template/methods.h"
#include "common/chat_template/operators.h"
#include "common/chat_template/runtime.h"

namespace tandem::jinja {
namespace {

// The text of an argument; `fallback` when it was not given or is None.
absl::StatusOr<const Text*> TextOr(const Value* argument, const Text* fallback) {
  if (argument == nullptr || argument->is_none()) {
    return fallback;
  }
  if (argument->text() == nullptr) {
    return WrongType(*argument, "is not a string");
  }
  return argument->text();
}

absl::StatusOr<int64_t> IntegerOr(const Value* argument, int64_t fallback) {
  if (argument == nullptr) {
    return fallback;
  }
  if (!argument->integer() && !argument->boolean()) {
    return WrongType(*argument, "cannot be interpreted as an integer");
  }
  return argument->AsInteger();
}

template <bool kLeft, bool kRight>
absl::StatusOr<Value> StripMethod(Runtime& runtime, const Value& self, const Arguments& arguments) {
  ASSIGN_OR_RETURN(const BoundArguments bound, Bind(arguments, {"chars"}));
  ASSIGN_OR_RETURN(const Text* chars, TextOr(bound[0], nullptr));
  const Range kept = Strip(self.text()->bytes(), chars == nullptr ? nullptr : &chars->bytes(),
                           {.left = kLeft, .right = kRight});
  return MakeText(runtime, self.text()->Slice(kept.begin, kept.end));
}

template <Text (*change)(const Text&)>
absl::StatusOr<Value> Change(Runtime& runtime, const Value& self, const Arguments& arguments) {
  RETURN_IF_ERROR(Bind(arguments, {}).status());
  return MakeText(runtime, change(*self.text()));
}
Text Lower(const Text& text) { return ChangeCase(text, Case::kLower); }
Text Upper(const Text& text) { return ChangeCase(text, Case::kUpper); }

bool HasAffix(const Text& text, const Text& affix, bool at_end) {
  return at_end ? text.bytes().ends_with(affix.bytes()) : text.bytes().starts_with(affix.bytes());
}

template <bool kAtEnd>
absl::StatusOr<Value> AffixMethod(Runtime&, const Value& self, const Arguments& arguments) {
  ASSIGN_OR_RETURN(const BoundArguments bound, Bind(arguments, {"affix"}, 1));
  std::vector<Value> affixes = {*bound[0]};
  const List* list = bound[0]->list();
  if (list != nullptr && list->flavor == List::Flavor::kTuple) {
    affixes = list->items;
  }
  for (const Value& affix : affixes) {
    if (affix.text() == nullptr) {
      return WrongType(affix, "is not a string");
    }
    if (HasAffix(*self.text(), *affix.text(), kAtEnd)) {
      return Value(true);
    }
  }
  return Value(false);
}

template <bool kAtEnd>
absl::StatusOr<Value> RemoveAffix(Runtime& runtime, const Value& self, const Arguments& arguments) {
  ASSIGN_OR_RETURN(const BoundArguments bound, Bind(arguments, {"affix"}, 1));
  ASSIGN_OR_RETURN(const Text* affix, TextOr(bound[0], nullptr));
  const Text& text = *self.text();
  if (affix == nullptr || !HasAffix(text, *affix, kAtEnd)) {
    return self;
  }
  return MakeText(runtime, kAtEnd ? text.Slice(0, text.size() - affix->size())
                                  : text.Slice(affix->size(), text.size()));
}

absl::StatusOr<Value> Replace(Runtime& runtime, const Value& self, const Arguments& arguments) {
  ASSIGN_OR_RETURN(const BoundArguments bound, Bind(arguments, {"old", "new", "count"}, 2));
  ASSIGN_OR_RETURN(const Text* from, TextOr(bound[0], nullptr));
  ASSIGN_OR_RETURN(const Text* to, TextOr(bound[1], nullptr));
  ASSIGN_OR_RETURN(const int64_t count, IntegerOr(bound[2], -1));
  if (from == nullptr || to == nullptr) {
    return Fail("takes strings");
  }
  return ReplaceAll(runtime, *self.text(), *from, *to, count);
}

absl::StatusOr<Value> Find(Runtime&, const Value& self, const Arguments& arguments) {
  ASSIGN_OR_RETURN(const BoundArguments bound, Bind(arguments, {"text"}, 1));
  ASSIGN_OR_RETURN(const Text* wanted, TextOr(bound[0], nullptr));
  if (wanted == nullptr) {
    return Fail("takes a string");
  }
  const std::string& bytes = self.text()->bytes();
  const void* found =
      memmem(bytes.data(), bytes.size(), wanted->bytes().data(), wanted->bytes().size());
  if (found == nullptr) {
    return Value(int64_t{-1});
  }
  return Value(CountCharacters(
      std::string_view(bytes).substr(0, static_cast<const char*>(found) - bytes.data())));
}

absl::StatusOr<Value> Count(Runtime&, const Value& self, const Arguments& arguments) {
  ASSIGN_OR_RETURN(const BoundArguments bound, Bind(arguments, {"text"}, 1));
  ASSIGN_OR_RETURN(const Text* wanted, TextOr(bound[0], nullptr));
  if (wanted == nullptr || wanted->empty()) {
    return Fail("takes a string that is not empty");
  }
  int64_t count = 0;
  std::string_view rest = self.text()->bytes();
  while (const void* found =
             memmem(rest.data(), rest.size(), wanted->bytes().data(), wanted->bytes().size())) {
    rest.remove_prefix(static_cast<const char*>(found) - rest.data() + wanted->size());
    ++count;
  }
  return Value(count);
}

// The pieces between separators, from the left; at most `max_splits` cuts unless it is
// below zero.
std::vector<Range> SplitAt(const Text& text, const Text& separator, int64_t max_splits) {
  std::vector<Range> pieces;
  int64_t begin = 0;
  while ((max_splits < 0 || static_cast<int64_t>(pieces.size()) < max_splits) &&
         static_cast<int64_t>(pieces.size()) <= kMaxListItems) {
    const void* found = memmem(text.bytes().data() + begin, text.size() - begin,
                               separator.bytes().data(), separator.size());
    if (found == nullptr) {
      break;
    }
    const int64_t end = static_cast<const char*>(found) - text.bytes().data();
    pieces.push_back({begin, end});
    begin = end + separator.size();
  }
  pieces.push_back({begin, text.size()});
  return pieces;
}

// The same at runs of whitespace, which also go from the front and, unless the cuts run
// out, from the end.
std::vector<Range> SplitAtSpace(const Text& text, int64_t max_splits) {
  const std::string_view bytes = text.bytes();
  std::vector<Range> pieces;
  Range rest = Strip(bytes, nullptr, {.left = true, .right = false});
  while (rest.begin < text.size() && static_cast<int64_t>(pieces.size()) <= kMaxListItems) {
    if (max_splits >= 0 && static_cast<int64_t>(pieces.size()) >= max_splits) {
      pieces.push_back({rest.begin, text.size()});
      break;
    }
    int64_t end = rest.begin;
    while (end < text.size() && !IsSpace(CharacterAt(bytes, end).code_point)) {
      end += CharacterAt(bytes, end).num_bytes;
    }
    pieces.push_back({rest.begin, end});
    rest.begin = end + Strip(bytes.substr(end), nullptr, {.left = true, .right = false}).begin;
  }
  return pieces;
}

absl::StatusOr<Value> ListOfPieces(Runtime& runtime, const Text& text,
                                   const std::vector<Range>& pieces) {
  if (static_cast<int64_t>(pieces.size()) > kMaxListItems) {
    return Fail(absl::StrCat("a list of ", pieces.size(), " items, at most ", kMaxListItems));
  }
  std::vector<Value> items;
  items.reserve(pieces.size());
  for (const Range& piece : pieces) {
    ASSIGN_OR_RETURN(Value item, MakeText(runtime, text.Slice(piece.begin, piece.end)));
    items.push_back(std::move(item));
  }
  return MakeList(runtime, std::move(items));
}

absl::StatusOr<Value> Split(Runtime& runtime, const Value& self, const Arguments& arguments) {
  ASSIGN_OR_RETURN(const BoundArguments bound, Bind(arguments, {"sep", "maxsplit"}));
  ASSIGN_OR_RETURN(const Text* separator, TextOr(bound[0], nullptr));
  ASSIGN_OR_RETURN(const int64_t max_splits, IntegerOr(bound[1], -1));
  const Text& text = *self.text();
  if (separator == nullptr) {
    return ListOfPieces(runtime, text, SplitAtSpace(text, max_splits));
  }
  if (separator->empty()) {
    return Fail("the separator is empty");
  }
  return ListOfPieces(runtime, text, SplitAt(text, *separator, max_splits));
}

absl::StatusOr<Value> SplitLinesMethod(Runtime& runtime, const Value& self,
                                       const Arguments& arguments) {
  RETURN_IF_ERROR(Bind(arguments, {}).status());
  return ListOfPieces(runtime, *self.text(), SplitLines(self.text()->bytes()));
}

absl::StatusOr<Value> Join(Runtime& runtime, const Value& self, const Arguments& arguments) {
  ASSIGN_OR_RETURN(const BoundArguments bound, Bind(arguments, {"items"}, 1));
  ASSIGN_OR_RETURN(const std::shared_ptr<const List> list, Iterate(runtime, *bound[0]));
  for (const Value& item : list->items) {
    if (item.text() == nullptr) {
      return WrongType(item, "is not a string");
    }
  }
  return JoinAll(runtime, *self.text(), *list);
}

absl::StatusOr<Value> IsDigit(Runtime&, const Value& self, const Arguments& arguments) {
  RETURN_IF_ERROR(Bind(arguments, {}).status());
  const std::string& bytes = self.text()->bytes();
  return Value(!bytes.empty() && std::all_of(bytes.begin(), bytes.end(),
                                             [](char c) { return c >= '0' && c <= '9'; }));
}

constexpr NativeEntry kStringMethods[] = {
    {"strip", &StripMethod<true, true>},
    {"lstrip", &StripMethod<true, false>},
    {"rstrip", &StripMethod<false, true>},
    {"split", &Split},
    {"splitlines", &SplitLinesMethod},
    {"startswith", &AffixMethod<false>},
    {"endswith", &AffixMethod<true>},
    {"removeprefix", &RemoveAffix<false>},
    {"removesuffix", &RemoveAffix<true>},
    {"lower", &Change<&Lower>},
    {"upper", &Change<&Upper>},
    {"title", &Change<&TitleByLetters>},
    {"capitalize", &Change<&Capitalize>},
    {"replace", &Replace},
    {"find", &Find},
    {"count", &Count},
    {"join", &Join},
    {"isdigit", &IsDigit},
};

}  // namespace

absl::Span<const NativeEntry> StringMethods() { return kStringMethods; }

}  // namespace tandem::jinja
