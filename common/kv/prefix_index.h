// Which pages hold which tokens: full pages by the prefix that made them.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/types/span.h"
#include "common/base/ids.h"

namespace tandem {

// A prefix of whole pages, known by its last page; kEmptyPrefix is the prefix without any.
enum class PrefixId : int64_t {};
inline constexpr PrefixId kEmptyPrefix{0};

// A tree of full pages of one role: a page's KV is a function of its tokens and of all
// before them, so it is found under the prefix that it follows. Hashes lead to a page,
// tokens are compared: two prefixes are never taken for each other.
//
// Holds numbers only; that pages stay alive is the caller's business, and that no page is
// removed before those that follow it. Not thread-safe.
class PrefixIndex {
 public:
  struct Entry {
    PrefixId prefix{};  // that ends with this page
    PageId page{};
  };

  // The page that holds `tokens` after `parent`, if one does.
  std::optional<Entry> Find(PrefixId parent, absl::Span<const int32_t> tokens) const;

  // Remembers that `page` holds `tokens` after `parent`. Requires that Find finds none, that
  // `parent` is known and `page` is not.
  PrefixId Insert(PrefixId parent, absl::Span<const int32_t> tokens, PageId page);

  // Forgets a page. Requires that it is known and that none follows it.
  void Remove(PageId page);

  int32_t size() const { return static_cast<int32_t>(by_page_.size()); }

 private:
  struct Node {
    PrefixId id{};
    PrefixId parent{};
    PageId page{};
    int32_t num_children = 0;
    uint64_t hash = 0;
    std::vector<int32_t> tokens;
  };

  static uint64_t HashOf(PrefixId parent, absl::Span<const int32_t> tokens);

  int64_t next_id_ = 1;
  // Several nodes may have one hash: a chain of them, nearly always of one.
  absl::flat_hash_map<uint64_t, std::vector<Node*>> by_hash_;
  absl::flat_hash_map<PrefixId, Node*> by_id_;
  absl::flat_hash_map<PageId, std::unique_ptr<Node>> by_page_;
};

}  // namespace tandem
