#include "common/tokenizer/special_matcher.h"

namespace tandem {
namespace {

uint64_t ChildKey(int32_t node, char byte) {
  return (static_cast<uint64_t>(node) << 8) | static_cast<uint8_t>(byte);
}

}  // namespace

void SpecialMatcher::Add(std::string_view text, int32_t id, bool in_content) {
  if (text.empty()) return;
  starts_[static_cast<uint8_t>(text[0])] = true;
  int32_t node = 0;
  for (const char byte : text) {
    const auto [it, is_new] =
        children_.try_emplace(ChildKey(node, byte), static_cast<int32_t>(nodes_.size()));
    if (is_new) nodes_.emplace_back();
    node = it->second;
  }
  Node& end = nodes_[static_cast<size_t>(node)];
  if (end.id < 0) end = {.id = id, .in_content = in_content};
}

SpecialMatcher::Match SpecialMatcher::LongestAt(std::string_view text, size_t begin,
                                                int64_t limit) const {
  Match longest = {.span = {}, .id = -1};
  int32_t node = 0;
  for (size_t at = begin; at < text.size(); ++at) {
    const auto it = children_.find(ChildKey(node, text[at]));
    if (it == children_.end()) break;
    node = it->second;
    const Node& end = nodes_[static_cast<size_t>(node)];
    const auto end_at = static_cast<int64_t>(at) + 1;
    if (end.id >= 0 && (end.in_content || end_at <= limit)) {
      longest = {.span = {static_cast<int64_t>(begin), end_at}, .id = end.id};
    }
  }
  return longest;
}

std::vector<SpecialMatcher::Match> SpecialMatcher::FindAll(
    std::string_view text, absl::Span<const ByteSpan> content) const {
  std::vector<Match> matches;
  size_t next_content = 0;  // first span that does not end before `at`
  for (size_t at = 0; at < text.size();) {
    if (!starts_[static_cast<uint8_t>(text[at])]) {
      ++at;
      continue;
    }
    const auto position = static_cast<int64_t>(at);
    while (next_content < content.size() && content[next_content].end <= position) ++next_content;
    // Inside a span its begin is at or before `at`, which allows nothing.
    const int64_t limit = next_content < content.size() ? content[next_content].begin
                                                        : static_cast<int64_t>(text.size());
    const Match match = LongestAt(text, at, limit);
    if (match.id >= 0) matches.push_back(match);
    at = match.id >= 0 ? static_cast<size_t>(match.span.end) : at + 1;
  }
  return matches;
}

}  // namespace tandem
