// The two links of the gateway.
#pragma once

#include "services/gateway/links/draft_protocol.h"
#include "services/gateway/links/remote_worker_link.h"
#include "services/gateway/links/target_protocol.h"

namespace tandem::gateway {

extern template class RemoteWorkerLink<TargetProtocol>;
extern template class RemoteWorkerLink<DraftProtocol>;

using RemoteTargetLink = RemoteWorkerLink<TargetProtocol>;
using RemoteDraftLink = RemoteWorkerLink<DraftProtocol>;

}  // namespace tandem::gateway
