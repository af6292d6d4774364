// What is asked of a connection, without gRPC: for options and command lines.
#pragma once

#include <string>

namespace tandem::rpc {

// PEM files; empty paths: none. `certificate` is the chain, the own one first.
struct TlsFiles {
  std::string certificate;
  std::string key;
  // Of a server: clients must show a certificate that these sign (mTLS). Of a client: who
  // signs servers; the system's roots without.
  std::string ca;

  bool is_empty() const { return certificate.empty() && key.empty() && ca.empty(); }
};

struct ServerSecurity {
  TlsFiles tls;
  bool allow_plaintext = false;  // --insecure: also beyond this machine
};

struct ChannelSecurity {
  TlsFiles tls;
  bool use_tls = false;          // with the system's roots; implied by files
  bool allow_plaintext = false;  // as above
};

// Whether nobody but this machine reaches `address`: "unix:/path", "localhost:1",
// "127.x.y.z:1" or "[::1]:1". Other names are not looked up.
bool IsLocalAddress(const std::string& address);

}  // namespace tandem::rpc
