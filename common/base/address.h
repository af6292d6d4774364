// Addresses as flags name them: "host:port" or "unix:/path".
#pragma once

#include <optional>
#include <string>

#include "absl/status/status.h"

namespace tandem {

struct HostPort {
  std::string host;  // an IPv6 address in its brackets
  int port = 0;
};

// Nothing unless there is a host, and a port in [0, 65535].
std::optional<HostPort> ParseHostPort(const std::string& address);

// INVALID_ARGUMENT unless `address` is host:port, or a unix: path that a socket can have; `flag`
// names it in the message.
absl::Status CheckAddress(const std::string& flag, const std::string& address);

// Where a client on this machine finds what listens on `address`: one that means all addresses
// is none to call.
std::string AddressToCall(const std::string& address);

}  // namespace tandem
