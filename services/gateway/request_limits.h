// The limits of a request; GetModel publishes them.
#pragma once

#include <cstdint>

namespace tandem::gateway {

inline constexpr int32_t kMaxRequestBytes = 1 << 20;
inline constexpr int32_t kMaxRequestIdBytes = 128;
inline constexpr int32_t kMaxStopStrings = 16;
inline constexpr int32_t kMaxStopBytes = 256;
inline constexpr int32_t kMaxStopTokenIds = 256;
inline constexpr int32_t kMaxLogitBiasEntries = 1024;
inline constexpr int32_t kMaxTopLogprobs = 20;
inline constexpr int32_t kMaxChatMessages = 4096;
inline constexpr int32_t kMaxRoleBytes = 64;
inline constexpr int32_t kMaxPriority = 10;  // either way

}  // namespace tandem::gateway
