// Iteration, attributes, items and slices.
#include <algorithm>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_format.h"
#include "common/base/status_macros.h"
#include "common/chat_template/methods.h"
#include "common/chat_template/operators.h"

namespace tandem::jinja {
namespace {

std::vector<Value> Characters(const Text& text) {
  const std::vector<int64_t> offsets = CharacterOffsets(text.bytes());
  std::vector<Value> characters;
  characters.reserve(offsets.size() - 1);
  for (size_t i = 0; i + 1 < offsets.size(); ++i) {
    characters.emplace_back(std::make_shared<const Text>(text.Slice(offsets[i], offsets[i + 1])));
  }
  return characters;
}

Value MissingAttribute(const Value& object, std::string_view name) {
  return Value::MakeUndefined(
      absl::StrFormat("'%s' object has no attribute '%s'", object.TypeName(), name));
}

// The attributes of `loop`; undefined for others.
Value LoopAttribute(const Value& object, std::string_view name) {
  const Loop& loop = *object.loop();
  const auto count = static_cast<int64_t>(loop.items->items.size());
  const auto item = [&loop](int64_t index) { return loop.items->items[index]; };
  if (name == "index") return Value(loop.index0 + 1);
  if (name == "index0") return Value(loop.index0);
  if (name == "revindex") return Value(count - loop.index0);
  if (name == "revindex0") return Value(count - loop.index0 - 1);
  if (name == "first") return Value(loop.index0 == 0);
  if (name == "last") return Value(loop.index0 == count - 1);
  if (name == "length") return Value(count);
  if (name == "depth") return Value(loop.nesting);
  if (name == "depth0") return Value(loop.nesting - 1);
  if (name == "previtem") {
    return loop.index0 > 0 ? item(loop.index0 - 1)
                           : Value::MakeUndefined("there is no previous item");
  }
  if (name == "nextitem") {
    return loop.index0 + 1 < count ? item(loop.index0 + 1)
                                   : Value::MakeUndefined("there is no next item");
  }
  return MissingAttribute(object, name);
}

// Python's slice.indices(): the first index, how many follow it, and the step.
struct SliceIndices {
  int64_t start = 0;
  int64_t count = 0;
  int64_t step = 1;
};

absl::StatusOr<int64_t> BoundOr(const Value& bound, int64_t fallback) {
  if (bound.is_none()) {
    return fallback;
  }
  if (!bound.integer() && !bound.boolean()) {
    return WrongType(bound, "cannot be a slice index");
  }
  return bound.AsInteger();
}

absl::StatusOr<SliceIndices> IndicesOf(const SliceBounds& bounds, int64_t length) {
  ASSIGN_OR_RETURN(int64_t step, BoundOr(bounds.step, 1));
  if (step == 0) {
    return Fail("slice step cannot be zero");
  }
  step = std::clamp<int64_t>(step, -(kMaxStringBytes + 1), kMaxStringBytes + 1);
  const int64_t lowest = step > 0 ? 0 : -1;
  const int64_t highest = step > 0 ? length : length - 1;
  const auto place = [&](int64_t bound) {
    return std::clamp(bound < 0 ? bound + length : bound, lowest, highest);
  };
  ASSIGN_OR_RETURN(int64_t start, BoundOr(bounds.start, step > 0 ? lowest : highest));
  ASSIGN_OR_RETURN(int64_t stop, BoundOr(bounds.stop, step > 0 ? highest : lowest));
  start = bounds.start.is_none() ? start : place(start);
  stop = bounds.stop.is_none() ? stop : place(stop);
  const int64_t distance = step > 0 ? stop - start : start - stop;
  const int64_t stride = step > 0 ? step : -step;
  return SliceIndices{start, distance > 0 ? (distance + stride - 1) / stride : 0, step};
}

}  // namespace

absl::StatusOr<std::shared_ptr<const List>> Iterate(Runtime& runtime, const Value& value) {
  if (std::shared_ptr<const List> list = value.shared_list()) {
    return list;
  }
  std::vector<Value> items;
  if (const Text* text = value.text()) {
    RETURN_IF_ERROR(runtime.budget.ChargeBytes(text->size()));
    if (const int64_t count = CountCharacters(text->bytes()); count > kMaxListItems) {
      return Fail(absl::StrFormat("a list of %d characters, at most %d", count, kMaxListItems));
    }
    items = Characters(*text);
  } else if (const Dict* dict = value.dict()) {
    for (const auto& [key, unused] : dict->items) {
      items.push_back(key);
    }
  } else if (!value.is_undefined()) {
    return WrongType(value, "is not iterable");
  }
  ASSIGN_OR_RETURN(const Value list, MakeList(runtime, std::move(items)));
  return list.shared_list();
}

absl::StatusOr<int64_t> Length(Runtime& runtime, const Value& value) {
  if (const Text* text = value.text()) {
    RETURN_IF_ERROR(runtime.budget.ChargeBytes(text->size()));
    return CountCharacters(text->bytes());
  }
  const List* list = value.loop() ? value.loop()->items.get() : value.list();
  if (list != nullptr && list->flavor != List::Flavor::kGenerator) {
    return static_cast<int64_t>(list->items.size());
  }
  if (const Dict* dict = value.dict()) {
    return static_cast<int64_t>(dict->items.size());
  }
  if (value.is_undefined()) {
    return 0;
  }
  return WrongType(value, "has no length");
}

absl::StatusOr<Value> GetAttribute(Runtime& runtime, const Value& object, std::string_view name) {
  if (object.is_undefined()) {
    return Fail(object.reason());
  }
  if (const NativeEntry* method = FindMethod(object, name)) {
    return MakeMethod(*method, object);
  }
  if (const Namespace* attributes = object.attributes()) {
    const auto found = attributes->attributes.find(name);
    return found == attributes->attributes.end() ? MissingAttribute(object, name) : found->second;
  }
  if (object.loop() != nullptr) {
    return LoopAttribute(object, name);
  }
  if (const Dict* dict = object.dict()) {
    ASSIGN_OR_RETURN(const Value* value, FindInDict(runtime, *dict, Value::OfText(name)));
    return value == nullptr ? MissingAttribute(object, name) : *value;
  }
  return MissingAttribute(object, name);
}

absl::StatusOr<Value> GetItem(Runtime& runtime, const Value& object, const Value& index) {
  if (object.is_undefined()) {
    return Fail(object.reason());
  }
  if (const Dict* dict = object.dict()) {
    ASSIGN_OR_RETURN(const Value* value, FindInDict(runtime, *dict, index));
    if (value != nullptr) {
      return *value;
    }
  }
  const bool is_position = index.integer() || index.boolean();
  const List* list = object.list();
  if (list != nullptr && is_position && list->flavor != List::Flavor::kGenerator) {
    const auto count = static_cast<int64_t>(list->items.size());
    const int64_t at = index.AsInteger() + (index.AsInteger() < 0 ? count : 0);
    if (at >= 0 && at < count) {
      return list->items[at];
    }
  }
  if (const Text* text = object.text(); text != nullptr && is_position) {
    RETURN_IF_ERROR(runtime.budget.ChargeBytes(text->size() * 8));
    const std::vector<int64_t> offsets = CharacterOffsets(text->bytes());
    const auto count = static_cast<int64_t>(offsets.size()) - 1;
    const int64_t at = index.AsInteger() + (index.AsInteger() < 0 ? count : 0);
    if (at >= 0 && at < count) {
      return MakeText(runtime, text->Slice(offsets[at], offsets[at + 1]));
    }
  }
  if (index.text() != nullptr) {
    return GetAttribute(runtime, object, index.text()->bytes());
  }
  return Value::MakeUndefined(
      absl::StrFormat("'%s' object has no such element", object.TypeName()));
}

absl::StatusOr<Value> GetSlice(Runtime& runtime, const Value& object, const SliceBounds& bounds) {
  const List* list = object.list();
  if (list != nullptr && list->flavor != List::Flavor::kGenerator) {
    ASSIGN_OR_RETURN(const SliceIndices indices,
                     IndicesOf(bounds, static_cast<int64_t>(list->items.size())));
    std::vector<Value> items;
    items.reserve(indices.count);
    for (int64_t i = 0; i < indices.count; ++i) {
      items.push_back(list->items[indices.start + i * indices.step]);
    }
    return MakeList(runtime, std::move(items), list->flavor);
  }
  if (const Text* text = object.text()) {
    RETURN_IF_ERROR(runtime.budget.ChargeBytes(text->size() * 8));
    const std::vector<int64_t> offsets = CharacterOffsets(text->bytes());
    ASSIGN_OR_RETURN(const SliceIndices indices,
                     IndicesOf(bounds, static_cast<int64_t>(offsets.size()) - 1));
    if (indices.step == 1) {
      return MakeText(runtime,
                      text->Slice(offsets[indices.start], offsets[indices.start + indices.count]));
    }
    Text slice;
    for (int64_t i = 0; i < indices.count; ++i) {
      const int64_t at = indices.start + i * indices.step;
      slice.AppendSlice(*text, offsets[at], offsets[at + 1]);
    }
    return MakeText(runtime, std::move(slice));
  }
  return WrongType(object, "cannot be sliced");
}

}  // namespace tandem::jinja
