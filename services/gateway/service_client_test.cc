#include "services/gateway/service_client.h"

#include "gtest/gtest.h"

namespace tandem::gateway {
namespace {

TEST(ClientKeyTest, APeerIsItsAddressWithoutThePort) {
  EXPECT_EQ(AddressOfPeer("ipv4:10.0.0.1:5432"), "ipv4:10.0.0.1");
  EXPECT_EQ(AddressOfPeer("ipv6:%5B::1%5D:5432"), "ipv6:%5B::1%5D");
  EXPECT_EQ(AddressOfPeer("unix:"), "unix");
  EXPECT_EQ(AddressOfPeer("unix:/run/a.sock"), "unix");
  EXPECT_EQ(AddressOfPeer("nonsense"), "nonsense");
  EXPECT_EQ(AddressOfPeer(""), "");
}

}  // namespace
}  // namespace tandem::gateway
