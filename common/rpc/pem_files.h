// Certificates and keys, read and checked before gRPC gets them: what it makes of a bad
// one is a handshake that fails without a reason.
#pragma once

#include <string>

#include "absl/status/statusor.h"
#include "common/rpc/security.h"

namespace tandem::rpc {

// The contents of TlsFiles; empty where there is no file.
struct PemTexts {
  std::string certificate;
  std::string key;
  std::string ca;
};

// Errors as MakeServerCredentials.
absl::StatusOr<PemTexts> ReadPemFiles(const TlsFiles& files);

}  // namespace tandem::rpc
