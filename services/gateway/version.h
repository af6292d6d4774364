// The version that GetModel and the metrics name.
#pragma once

namespace tandem::gateway {

inline constexpr char kVersion[] = TANDEM_VERSION;

}  // namespace tandem::gateway
