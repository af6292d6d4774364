// Certificates for tests, made when needed: none lies in the tree to expire.
#pragma once

#include <string>

namespace tandem::rpc {

// PEM texts.
struct TestCertificate {
  std::string certificate;
  std::string key;
};

// For the host `name`, signed by `issuer` (itself without), valid from an hour ago for
// `seconds_valid` from now.
TestCertificate MakeTestCertificate(const std::string& name,
                                    const TestCertificate* issuer = nullptr,
                                    int seconds_valid = 3600);

}  // namespace tandem::rpc
