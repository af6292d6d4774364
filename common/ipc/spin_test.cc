#include "common/ipc/spin.h"

#include "gtest/gtest.h"

namespace tandem {
namespace {

// How often a wait in vain looks.
int64_t NumLooks(Spin& spin) {
  int64_t count = 0;
  EXPECT_FALSE(spin.Until([&] { return ++count < 0; }));
  return count;
}

TEST(SpinTest, EndsWithWhatItWaitsFor) {
  Spin spin;
  int32_t num_looks = 0;
  EXPECT_TRUE(spin.Until([&] { return ++num_looks == 3; }));
  EXPECT_EQ(num_looks, 3);
}

TEST(SpinTest, IsLeftAfterWaitsOfNoUseAndTriedAgainLater) {
  Spin spin;
  for (int32_t i = 0; i < Spin::kInVain; ++i) EXPECT_GT(NumLooks(spin), 1);
  for (int32_t turn = 0; turn < 3; ++turn) {
    for (int32_t i = 0; i < Spin::kWaitsLeft; ++i) EXPECT_EQ(NumLooks(spin), 1);
    EXPECT_GT(NumLooks(spin), 1);
  }
}

TEST(SpinTest, GoesOnWhereItIsOfUse) {
  Spin spin;
  for (int32_t i = 1; i < Spin::kInVain; ++i) NumLooks(spin);
  int32_t num_looks = 0;
  EXPECT_TRUE(spin.Until([&] { return ++num_looks == 2; }));
  for (int32_t i = 0; i < Spin::kInVain; ++i) EXPECT_GT(NumLooks(spin), 1);
  // What was there already says nothing of spinning.
  EXPECT_TRUE(spin.Until([] { return true; }));
  EXPECT_EQ(NumLooks(spin), 1);
}

}  // namespace
}  // namespace tandem
