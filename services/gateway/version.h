// The version that GetModel and the metrics name.
#pragma once

namespace tandem::gateway {

inline constexpr char kVersion[] = TANDEM_VERSION;
// Of the sources, where the build was told (-DTANDEM_COMMIT); else "unknown".
inline constexpr char kCommit[] = TANDEM_COMMIT;

}  // namespace tandem::gateway
