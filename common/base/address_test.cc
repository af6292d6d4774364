#include "common/base/address.h"

#include <string>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace tandem {
namespace {

using testing::HasSubstr;

std::string Message(const std::string& address) {
  return std::string(CheckAddress("--listen", address).message());
}

TEST(AddressTest, TakesWhatCanBeListenedOn) {
  for (const char* address :
       {"127.0.0.1:0", "localhost:65535", "[::1]:50051", "unix:/tmp/s.sock"}) {
    EXPECT_TRUE(CheckAddress("--listen", address).ok()) << address;
  }
  EXPECT_EQ(ParseHostPort("[::1]:7")->host, "[::1]");
  EXPECT_EQ(ParseHostPort("[::1]:7")->port, 7);
}

TEST(AddressTest, TellsWhatIsWrong) {
  for (const char* address : {"", ":50051", "localhost:99999", "localhost:-1", "localhost:http"}) {
    EXPECT_THAT(Message(address), HasSubstr("neither host:port nor unix:/path")) << address;
  }
  EXPECT_THAT(Message("bogus"), HasSubstr("the port is missing, as in bogus:50051"));
  EXPECT_THAT(Message("unix:" + std::string(108, 'x')),
              testing::AllOf(HasSubstr("at most 107 bytes"), HasSubstr("has 108")));
  EXPECT_EQ(Message("unix:" + std::string(107, 'x')), "");
}

TEST(AddressTest, AllAddressesAreCalledByTheOneOfThisMachine) {
  EXPECT_EQ(AddressToCall("0.0.0.0:50171"), "127.0.0.1:50171");
  EXPECT_EQ(AddressToCall("[::]:50171"), "[::1]:50171");
  EXPECT_EQ(AddressToCall("10.0.0.7:50171"), "10.0.0.7:50171");
  EXPECT_EQ(AddressToCall("unix:/s.sock"), "unix:/s.sock");
}

}  // namespace
}  // namespace tandem
