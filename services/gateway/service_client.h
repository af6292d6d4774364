// Whom a call is for, as far as fairness goes.
#pragma once

#include <string>

#include "grpcpp/grpcpp.h"

namespace tandem::gateway {

// The API key of the call (metadata `x-api-key`, or `authorization`), hashed so that it is
// kept nowhere; else the address of the peer without its port.
std::string ClientKeyOf(const grpc::CallbackServerContext& context);

// "ipv4:10.0.0.1:5432" is "ipv4:10.0.0.1"; a unix socket has one peer.
std::string AddressOfPeer(const std::string& peer);

}  // namespace tandem::gateway
