#include "common/kv/prefix_index.h"

#include <algorithm>
#include <utility>

#include "absl/hash/hash.h"
#include "common/base/check.h"

namespace tandem {

uint64_t PrefixIndex::HashOf(PrefixId parent, absl::Span<const int32_t> tokens) {
  return absl::HashOf(parent, tokens);
}

std::optional<PrefixIndex::Entry> PrefixIndex::Find(PrefixId parent,
                                                    absl::Span<const int32_t> tokens) const {
  const auto found = by_hash_.find(HashOf(parent, tokens));
  if (found == by_hash_.end()) return std::nullopt;
  for (const Node* node : found->second) {
    if (node->parent != parent || absl::MakeConstSpan(node->tokens) != tokens) continue;
    return Entry{.prefix = node->id, .page = node->page};
  }
  return std::nullopt;
}

PrefixId PrefixIndex::Insert(PrefixId parent, absl::Span<const int32_t> tokens, PageId page) {
  TANDEM_CHECK(!Find(parent, tokens).has_value());
  if (parent != kEmptyPrefix) {
    const auto found = by_id_.find(parent);
    TANDEM_CHECK(found != by_id_.end());
    ++found->second->num_children;
  }
  auto node = std::make_unique<Node>();
  node->id = PrefixId(next_id_++);
  node->parent = parent;
  node->page = page;
  node->hash = HashOf(parent, tokens);
  node->tokens.assign(tokens.begin(), tokens.end());
  by_hash_[node->hash].push_back(node.get());
  by_id_[node->id] = node.get();
  const PrefixId id = node->id;
  TANDEM_CHECK(by_page_.emplace(page, std::move(node)).second);
  return id;
}

void PrefixIndex::Remove(PageId page) {
  const auto found = by_page_.find(page);
  TANDEM_CHECK(found != by_page_.end());
  const Node& node = *found->second;
  TANDEM_CHECK(node.num_children == 0);
  if (node.parent != kEmptyPrefix) --by_id_.at(node.parent)->num_children;
  by_id_.erase(node.id);
  const auto chain = by_hash_.find(node.hash);
  chain->second.erase(std::find(chain->second.begin(), chain->second.end(), &node));
  if (chain->second.empty()) by_hash_.erase(chain);
  by_page_.erase(found);
}

}  // namespace tandem
