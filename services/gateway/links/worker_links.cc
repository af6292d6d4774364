#include "services/gateway/links/worker_links.h"

namespace tandem::gateway {

template class RemoteWorkerLink<TargetProtocol>;
template class RemoteWorkerLink<DraftProtocol>;

}  // namespace tandem::gateway
