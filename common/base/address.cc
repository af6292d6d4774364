#include "common/base/address.h"

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"

namespace tandem {
namespace {

constexpr char kUnixPrefix[] = "unix:";
constexpr size_t kMaxSocketPathBytes = 107;  // sockaddr_un, unix(7)
constexpr char kExamplePort[] = ":50051";

}  // namespace

std::optional<HostPort> ParseHostPort(const std::string& address) {
  const size_t colon = address.rfind(':');
  HostPort result;
  if (colon == std::string::npos || colon == 0 ||
      !absl::SimpleAtoi(address.substr(colon + 1), &result.port) || result.port < 0 ||
      result.port > 65535) {
    return std::nullopt;
  }
  result.host = address.substr(0, colon);
  return result;
}

absl::Status CheckAddress(const std::string& flag, const std::string& address) {
  if (absl::StartsWith(address, kUnixPrefix)) {
    const size_t num_bytes = address.size() - (sizeof(kUnixPrefix) - 1);
    if (num_bytes <= kMaxSocketPathBytes) return absl::OkStatus();
    return absl::InvalidArgumentError(absl::StrCat(flag, ": the path of a socket has at most ",
                                                   kMaxSocketPathBytes, " bytes, ", address,
                                                   " has ", num_bytes, ": choose a shorter one"));
  }
  if (ParseHostPort(address).has_value()) return absl::OkStatus();
  const bool has_port = absl::StrContains(address, ':');
  return absl::InvalidArgumentError(
      absl::StrCat(flag, " is '", address, "', neither host:port nor unix:/path",
                   has_port || address.empty()
                       ? ""
                       : absl::StrCat(": the port is missing, as in ", address, kExamplePort)));
}

std::string AddressToCall(const std::string& address) {
  const std::optional<HostPort> parsed = ParseHostPort(address);
  if (!parsed.has_value()) return address;
  if (parsed->host == "0.0.0.0") return absl::StrCat("127.0.0.1:", parsed->port);
  if (parsed->host == "[::]") return absl::StrCat("[::1]:", parsed->port);
  return address;
}

}  // namespace tandem
