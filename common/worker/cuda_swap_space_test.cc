// Pages that leave a GPU and come back.
#include <algorithm>
#include <cstdint>
#include <memory>
#include <vector>

#include "common/kernels/cuda/device_test_memory.h"
#include "common/model/cuda_executor.h"
#include "common/model/executor_driver.h"
#include "common/model/test_model.h"
#include "common/worker/swap_space.h"

namespace tandem::worker {
namespace {

PageCopy Out(int32_t page, int32_t swap_page) {
  return {.page = PageId(page), .swap_page = swap_page, .to_host = true};
}
PageCopy In(int32_t swap_page, int32_t page) {
  return {.page = PageId(page), .swap_page = swap_page, .to_host = false};
}

// Two blocks of places, and pages enough that copies are on their way when others begin.
TEST(CudaSwapSpaceTest, PagesComeBackBitForBitAndCopiesFollowEachOther) {
  TANDEM_NEEDS_DEVICE();
  constexpr int64_t kPageBytes = (1 << 20) + 64;
  constexpr int32_t kNumPages = 100;
  std::vector<uint8_t> bytes(kNumPages * kPageBytes);
  uint32_t seed = 1;
  for (uint8_t& byte : bytes) {
    seed = seed * 1664525 + 1013904223;
    byte = static_cast<uint8_t>(seed >> 24);
  }
  const cuda::DeviceArray<uint8_t> pages(bytes);
  const KvMemory pool = {.base = pages.get(), .page_bytes = kPageBytes, .num_pages = kNumPages};
  SwapSpace space(NewCudaPageCopier(0), pool, kNumPages * kPageBytes);
  ASSERT_EQ(space.num_pages(), kNumPages);
  EXPECT_EQ(space.held_bytes(), 0);

  // All leave, and come back in the other order: what is read from a page left it before.
  std::vector<PageCopy> copies;
  for (int32_t i = 0; i < kNumPages; ++i) copies.push_back(Out(i, i * 37 % kNumPages));
  for (int32_t i = 0; i < kNumPages; ++i)
    copies.push_back(In(i * 37 % kNumPages, kNumPages - 1 - i));
  ASSERT_TRUE(space.Run(copies).ok());
  EXPECT_EQ(space.held_bytes(), kNumPages * kPageBytes);
  const std::vector<uint8_t> turned = pages.Read();
  for (int32_t i = 0; i < kNumPages; ++i) {
    const auto from = bytes.begin() + i * kPageBytes;
    const auto at = turned.begin() + (kNumPages - 1 - i) * kPageBytes;
    ASSERT_TRUE(std::equal(from, from + kPageBytes, at)) << "page " << i;
  }
  // A place whose page comes takes another page in the same step.
  ASSERT_TRUE(space.Run({In(0, 0), Out(1, 0), In(0, 2)}).ok());
  const std::vector<uint8_t> last = pages.Read();
  EXPECT_TRUE(std::equal(last.begin() + kPageBytes, last.begin() + 2 * kPageBytes,
                         last.begin() + 2 * kPageBytes));
  EXPECT_EQ(space.Run({In(kNumPages, 0)}).code(), absl::StatusCode::kInvalidArgument);
}

// Steps before and after on the executor's stream, copies on another: a forward pass that read
// or wrote too early or too late would show in the logits.
TEST(CudaSwapSpaceTest, ASequenceGoesOnInOtherPagesAsIfNothingHadHappened) {
  TANDEM_NEEDS_DEVICE();
  const auto file = OpenTestModel({.vocab_size = 333,
                                   .num_layers = 2,
                                   .hidden_dim = 256,
                                   .ffn_dim = 512,
                                   .num_heads = 4,
                                   .num_kv_heads = 2,
                                   .head_dim = 64,
                                   .tied_head = true,
                                   .weight_type = DType::kQ4_0,
                                   .embedding_type = DType::kQ8_0});
  DeviceLedger ledger;
  uint8_t* base = nullptr;
  const auto drive = [&](KvType kv_type) {
    auto executor = CreateCudaExecutor(
        *file, {.limits = {.max_step_tokens = 256, .max_logits_rows = 256, .max_positions = 1600},
                .ledger = &ledger,
                .k_type = kv_type,
                .v_type = kv_type,
                .page_positions = 32});
    EXPECT_TRUE(executor.ok()) << executor.status();
    return ExecutorDriver(*std::move(executor), /*num_sequences=*/2, [&base](int64_t num_bytes) {
      void* data = nullptr;
      EXPECT_EQ(cudaMalloc(&data, num_bytes), cudaSuccess);
      EXPECT_EQ(cudaMemset(data, 0xff, num_bytes), cudaSuccess);
      base = static_cast<uint8_t*>(data);
      return std::shared_ptr<uint8_t[]>(base, [](uint8_t* pages) { cudaFree(pages); });
    });
  };
  constexpr int32_t kBefore = 700;
  constexpr int32_t kPages = kBefore / 32 + 1;
  const std::vector<int32_t> text = RandomTokens(kBefore + 60, 333, 9);
  const std::vector<int32_t> other = RandomTokens(kBefore + 60, 333, 10);
  const auto tokens = absl::MakeConstSpan(text);
  for (const KvType kv_type : {KvType::kF16, KvType::k8, KvType::k4}) {
    ExecutorDriver undisturbed = drive(kv_type);
    const LogitsRows expected = undisturbed.RunInSteps(0, tokens, {100, 7, 33});

    ExecutorDriver driver = drive(kv_type);
    const KvLayout& layout = driver.executor().kv_layout();
    SwapSpace space(NewCudaPageCopier(0),
                    {.base = base, .page_bytes = layout.page_bytes(), .num_pages = 100},
                    kPages * layout.page_bytes());
    driver.RunInSteps(0, tokens.subspan(0, kBefore), {250});
    std::vector<PageCopy> out, in;
    for (int32_t i = 0; i < kPages; ++i) {
      out.push_back(Out(driver.page_table(0)[i], kPages - 1 - i));
      in.push_back(In(kPages - 1 - i, driver.page_table(1)[i]));
    }
    ASSERT_TRUE(space.Run(out).ok());
    driver.RunInSteps(0, other, {250});
    driver.RunInSteps(1, other, {250});
    ASSERT_TRUE(space.Run(in).ok());
    for (int32_t start = kBefore; start < kBefore + 60; start += 4) {
      const LogitsRows rows = driver.Step({{.sequence = 1,
                                            .start_position = start,
                                            .token_ids = tokens.subspan(start, 4),
                                            .num_logits = 4}});
      for (int32_t i = 0; i < 4; ++i) {
        ASSERT_EQ(rows[i], expected[start + i])
            << "position " << start + i << ", KV " << static_cast<int>(kv_type);
      }
    }
  }
}

}  // namespace
}  // namespace tandem::worker
