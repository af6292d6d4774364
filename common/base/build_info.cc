#include "common/base/build_info.h"

#include "build_commit.h"  // made by each build

namespace tandem {

const BuildInfo kBuildInfo = {
    .version = TANDEM_VERSION, .commit = TANDEM_COMMIT, .cuda = TANDEM_CUDA_VERSION};

}  // namespace tandem
