#include "services/gateway/gateway_options.h"

#include <vector>

#include "gtest/gtest.h"

namespace tandem::gateway {
namespace {

GatewayOptions Parse(std::vector<const char*> arguments) {
  arguments.insert(arguments.begin(), {"tandem-gateway", "--target", "unix:/x"});
  return ParseGatewayOptions(static_cast<int>(arguments.size()), arguments.data()).value();
}

// By default one client could take all places, and everyone else got QUEUE_FULL.
TEST(GatewayOptionsTest, UnlessToldOneClientMayHaveThreeQuartersOfThePlaces) {
  EXPECT_EQ(RequestsPerClient(Parse({})), 204);
  EXPECT_EQ(RequestsPerClient(Parse({"--max-running", "1", "--max-waiting", "0"})), 1);
  EXPECT_EQ(RequestsPerClient(Parse({"--max-requests-per-client", "0"})), 0);
  EXPECT_EQ(RequestsPerClient(Parse({"--max-requests-per-client", "7"})), 7);
}

}  // namespace
}  // namespace tandem::gateway
