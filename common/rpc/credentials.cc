#include "common/rpc/credentials.h"

#include <arpa/inet.h>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "common/base/status_macros.h"
#include "common/rpc/pem_files.h"
#include "grpcpp/security/tls_certificate_provider.h"
#include "grpcpp/security/tls_credentials_options.h"

namespace tandem::rpc {
namespace {

absl::Status PlaintextError(const std::string& address, const char* remedy) {
  return absl::InvalidArgumentError(absl::StrCat(
      address, " is beyond this machine, and others would read what goes there: ", remedy,
      ", or accept that with --insecure"));
}

}  // namespace

bool IsLocalAddress(const std::string& address) {
  if (absl::StartsWith(address, "unix:")) return true;
  const size_t colon = address.rfind(':');
  if (colon == std::string::npos) return false;
  const std::string host = address.substr(0, colon);
  if (host == "localhost" || host == "[::1]") return true;
  in_addr ipv4 = {};
  constexpr uint32_t kLoopbackNet = 127;
  return inet_pton(AF_INET, host.c_str(), &ipv4) == 1 && ntohl(ipv4.s_addr) >> 24 == kLoopbackNet;
}

absl::Status CheckServerSecurity(const std::string& address, const ServerSecurity& security) {
  if (security.tls.is_empty()) {
    if (IsLocalAddress(address) || security.allow_plaintext) return absl::OkStatus();
    return PlaintextError(address, "give --tls-cert and --tls-key");
  }
  ASSIGN_OR_RETURN(const PemTexts texts, ReadPemFiles(security.tls));
  if (texts.certificate.empty()) {
    return absl::InvalidArgumentError("--tls-ca is of no use without --tls-cert and --tls-key");
  }
  return absl::OkStatus();
}

absl::StatusOr<std::shared_ptr<grpc::ServerCredentials>> MakeServerCredentials(
    const std::string& address, const ServerSecurity& security, absl::Duration refresh_interval) {
  RETURN_IF_ERROR(CheckServerSecurity(address, security));
  if (security.tls.is_empty()) return grpc::InsecureServerCredentials();
  // The files were read to be checked; gRPC reads them again, and whenever they change.
  grpc::experimental::TlsServerCredentialsOptions options(
      std::make_shared<grpc::experimental::FileWatcherCertificateProvider>(
          security.tls.key, security.tls.certificate, security.tls.ca,
          static_cast<unsigned>(absl::ToInt64Seconds(refresh_interval))));
  options.watch_identity_key_cert_pairs();
  if (security.tls.ca.empty()) {
    options.set_cert_request_type(GRPC_SSL_DONT_REQUEST_CLIENT_CERTIFICATE);
  } else {
    options.watch_root_certs();
    options.set_cert_request_type(GRPC_SSL_REQUEST_AND_REQUIRE_CLIENT_CERTIFICATE_AND_VERIFY);
  }
  return grpc::experimental::TlsServerCredentials(options);
}

absl::StatusOr<std::shared_ptr<grpc::ChannelCredentials>> MakeChannelCredentials(
    const std::string& address, const ChannelSecurity& security) {
  if (security.tls.is_empty() && !security.use_tls) {
    if (IsLocalAddress(address) || security.allow_plaintext) {
      return grpc::InsecureChannelCredentials();
    }
    return PlaintextError(address, "use --tls");
  }
  ASSIGN_OR_RETURN(PemTexts texts, ReadPemFiles(security.tls));
  return grpc::SslCredentials({.pem_root_certs = std::move(texts.ca),
                               .pem_private_key = std::move(texts.key),
                               .pem_cert_chain = std::move(texts.certificate)});
}

}  // namespace tandem::rpc
