#include "common/device/nvml.h"

#include "gtest/gtest.h"

namespace tandem {
namespace {

// Whatever the machine has, asking is harmless.
TEST(NvmlTest, TellsAboutTheGpuOrThatThereIsNone) {
  const absl::StatusOr<std::unique_ptr<Nvml>> nvml = Nvml::Open();
  if (!nvml.ok()) {
    EXPECT_EQ(nvml.status().code(), absl::StatusCode::kUnavailable);
    GTEST_SKIP() << nvml.status().message();
  }
  EXPECT_EQ((*nvml)->Facts(-1).status().code(), absl::StatusCode::kNotFound);
  EXPECT_EQ((*nvml)->Facts(1000).status().code(), absl::StatusCode::kNotFound);
  if ((*nvml)->num_gpus() == 0) GTEST_SKIP() << "the driver has no GPU";
  const absl::StatusOr<GpuFacts> facts = (*nvml)->Facts(0);
  ASSERT_TRUE(facts.ok()) << facts.status();
  EXPECT_FALSE(facts->name.empty());
  EXPECT_GT(facts->total_bytes, int64_t{1} << 30);
  EXPECT_LE(facts->free_bytes, facts->total_bytes);
  EXPECT_GT(facts->context_bytes, int64_t{32} << 20);
  EXPECT_LT(facts->context_bytes, int64_t{2} << 30);
  std::printf("%s at %s, context %lld MiB\n", facts->name.c_str(), facts->bus_id.c_str(),
              static_cast<long long>(facts->context_bytes >> 20));
  // No context: the driver knows nothing of us.
  EXPECT_FALSE((*nvml)->OwnBytes(facts->bus_id).ok());
  EXPECT_FALSE((*nvml)->OwnBytes("no bus").ok());
}

}  // namespace
}  // namespace tandem
