#include "services/gateway/service_client.h"

#include <string_view>

#include "absl/hash/hash.h"
#include "absl/strings/str_cat.h"

namespace tandem::gateway {

std::string AddressOfPeer(const std::string& peer) {
  if (peer.rfind("unix", 0) == 0) return "unix";
  const size_t colon = peer.rfind(':');
  return colon == std::string::npos || peer.find(':') == colon ? peer : peer.substr(0, colon);
}

std::string ClientKeyOf(const grpc::CallbackServerContext& context) {
  const auto& metadata = context.client_metadata();
  for (const char* name : {"x-api-key", "authorization"}) {
    const auto found = metadata.find(name);
    if (found == metadata.end()) continue;
    const std::string_view key(found->second.data(), found->second.size());
    return absl::StrCat("key:", absl::Hex(absl::HashOf(key), absl::kZeroPad16));
  }
  return AddressOfPeer(context.peer());
}

}  // namespace tandem::gateway
