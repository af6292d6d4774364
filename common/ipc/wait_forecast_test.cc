#include "common/ipc/wait_forecast.h"

#include "gtest/gtest.h"

namespace tandem {
namespace {

using absl::Microseconds;

WaitForecast AfterWaits(int32_t num_cores, std::initializer_list<int> microseconds) {
  WaitForecast forecast(num_cores);
  for (const int wait : microseconds) forecast.Record(Microseconds(wait));
  return forecast;
}

TEST(WaitForecastTest, SleepsMostOfAWaitLikeTheLastOnes) {
  const auto next = AfterWaits(8, {2000, 2010, 2050, 1990, 2020, 2000, 2030, 2040}).Next();
  ASSERT_TRUE(next.has_value());
  EXPECT_EQ(next->sleep, Microseconds(2000) - WaitForecast::kEarly);
  EXPECT_EQ(next->sleep + next->look, Microseconds(2030) + WaitForecast::kLate);
}

TEST(WaitForecastTest, OddWaitsAmongThemDoNotCount) {
  const auto next = AfterWaits(8, {2000, 2010, 9000, 1990, 20, 2000, 2030, 9000}).Next();
  ASSERT_TRUE(next.has_value());
  EXPECT_GT(next->sleep, Microseconds(1800));
}

TEST(WaitForecastTest, AShortWaitIsNotSleptThrough) {
  const auto next = AfterWaits(8, {90, 80, 100, 90, 90, 90, 90, 90}).Next();
  ASSERT_TRUE(next.has_value());
  EXPECT_EQ(next->sleep, absl::ZeroDuration());
}

TEST(WaitForecastTest, ForecastsNothingWhereItCannotBeToldOrIsNotWorthIt) {
  EXPECT_FALSE(AfterWaits(8, {2000, 2000, 2000, 2000, 2000, 2000, 2000}).Next().has_value());
  EXPECT_FALSE(AfterWaits(8, {900, 2000, 1500, 1000, 2500, 1200, 1700, 800}).Next().has_value());
  EXPECT_FALSE(
      AfterWaits(8, {20000, 20000, 20000, 20000, 20000, 20000, 20000, 20000}).Next().has_value());
}

TEST(WaitForecastTest, LeavesTheCoresOfASmallMachineAlone) {
  EXPECT_FALSE(AfterWaits(2, {2000, 2000, 2000, 2000, 2000, 2000, 2000, 2000}).Next().has_value());
}

TEST(WaitForecastTest, OnlyTheLastWaitsCount) {
  WaitForecast forecast(8);
  for (int i = 0; i < 100; ++i) forecast.Record(absl::Seconds(1));
  EXPECT_FALSE(forecast.Next().has_value());
  for (int i = 0; i < 8; ++i) forecast.Record(Microseconds(500));
  EXPECT_TRUE(forecast.Next().has_value());
}

}  // namespace
}  // namespace tandem
