// What this program was built from.
#pragma once

namespace tandem {

struct BuildInfo {
  const char* version;
  const char* commit;  // of the sources, "-dirty" behind it where they differ; or "unknown"
  const char* cuda;    // version of the toolkit, "12.8"; "none" in a build for the CPU alone
};

extern const BuildInfo kBuildInfo;

}  // namespace tandem
