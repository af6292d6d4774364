// Numbers that must not be mixed up, as types.
#pragma once

#include <cstdint>

namespace tandem {

// Index of a page in the pool, in [0, num_pages). Not a byte offset.
enum class PageId : int32_t {};

// A sequence as the gateway numbers it, unique for the gateway's life.
enum class SequenceId : int64_t {};

// The two workers, and the two kinds of page owner.
enum class Role : int8_t { kTarget = 0, kDraft = 1 };
inline constexpr int kNumRoles = 2;

inline const char* RoleName(Role role) { return role == Role::kTarget ? "target" : "draft"; }

}  // namespace tandem
