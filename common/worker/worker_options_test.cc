#include "common/worker/worker_options.h"

#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace tandem::worker {
namespace {

using testing::HasSubstr;

absl::StatusOr<WorkerOptions> Parse(std::vector<const char*> arguments, Role role = Role::kTarget) {
  arguments.insert(arguments.begin(), "tandem-worker");
  return ParseWorkerOptions(role, static_cast<int>(arguments.size()), arguments.data());
}

TEST(WorkerOptionsTest, ReadsAllFlags) {
  const auto options = Parse({"--model",
                              "m.gguf",
                              "--listen",
                              "unix:/tmp/a/t.sock",
                              "--threads",
                              "3",
                              "--kv-k",
                              "q8",
                              "--kv-v",
                              "f16",
                              "--ctx",
                              "4096",
                              "--kv-pages",
                              "77",
                              "--swap-space",
                              "3GiB",
                              "--page-positions",
                              "64",
                              "--max-step-tokens",
                              "100",
                              "--no-ring",
                              "--restart-reason",
                              "oom",
                              "--die-with-parent"});
  ASSERT_TRUE(options.ok()) << options.status();
  EXPECT_EQ(options->model, "m.gguf");
  EXPECT_EQ(options->socket_path(), "/tmp/a/t.sock");
  EXPECT_EQ(options->pool_socket_path(), "/tmp/a/t.sock.pool");
  EXPECT_EQ(options->threads, 3);
  EXPECT_EQ(KvTypeName(options->k_type, options->v_type), "q8/f16");
  EXPECT_EQ(options->max_positions, 4096);
  EXPECT_EQ(options->num_kv_pages, 77);
  EXPECT_EQ(options->swap_bytes, int64_t{3} << 30);
  EXPECT_EQ(options->page_positions, 64);
  EXPECT_EQ(options->max_step_tokens, 100);
  EXPECT_FALSE(options->use_ring);
  EXPECT_EQ(options->restart_reason, "oom");
  EXPECT_TRUE(options->die_with_parent);
}

TEST(WorkerOptionsTest, ReadsTheDevice) {
  const auto cpu = Parse({"--model", "m", "--listen", "unix:/t"});
  EXPECT_EQ(cpu->cuda_device, -1);
  EXPECT_FALSE(cpu->pool_transport.has_value());
  const auto gpu = Parse({"--model", "m", "--listen", "unix:/t", "--device", "cuda:2",
                          "--vram-budget", "8GiB", "--nf4", "--pool-transport", "fd"});
  ASSERT_TRUE(gpu.ok()) << gpu.status();
  EXPECT_EQ(gpu->cuda_device, 2);
  EXPECT_EQ(gpu->vram_budget_bytes, int64_t{8} << 30);
  EXPECT_TRUE(gpu->quantize_to_nf4);
  EXPECT_FALSE(gpu->embedding_on_device);
  EXPECT_EQ(gpu->pool_transport, PagesTransport::kFileDescriptor);
  EXPECT_EQ(*ParseDevice("cuda"), 0);
  for (const char* bad : {"", "gpu", "cuda:", "cuda:-1", "cuda:x", "cuda:256", "CPU"}) {
    EXPECT_EQ(ParseDevice(bad).status().code(), absl::StatusCode::kInvalidArgument) << bad;
  }
}

TEST(WorkerOptionsTest, DefaultsDifferByRole) {
  const auto target = Parse({"--model", "m", "--listen", "unix:/t"});
  EXPECT_EQ(KvTypeName(target->k_type, target->v_type), "q4");
  EXPECT_GE(target->threads, 1);
  const auto draft = Parse({"--model", "m", "--listen", "unix:/t"}, Role::kDraft);
  EXPECT_EQ(KvTypeName(draft->k_type, draft->v_type), "q8");
}

TEST(WorkerOptionsTest, NamesTheFlagThatIsWrong) {
  const auto refused = [](std::vector<const char*> arguments, Role role = Role::kTarget) {
    for (const char* argument : {"unix:/t", "--listen", "m", "--model"}) {
      arguments.insert(arguments.begin(), argument);
    }
    const auto options = Parse(arguments, role);
    EXPECT_EQ(options.status().code(), absl::StatusCode::kInvalidArgument);
    return std::string(options.status().message());
  };
  EXPECT_THAT(refused({"--kv", "q5"}), HasSubstr("--kv"));
  EXPECT_THAT(refused({"--ctx", "-1"}), HasSubstr("--ctx"));
  EXPECT_THAT(refused({"--threads", "many"}), HasSubstr("--threads"));
  EXPECT_THAT(refused({"--page-positions", "20"}), HasSubstr("--page-positions"));
  EXPECT_THAT(refused({"--kv-pages", "3", "--kv-bytes", "5"}), HasSubstr("--kv-"));
  EXPECT_THAT(refused({"--kv-pages", "3"}, Role::kDraft), HasSubstr("--kv-pages"));
  EXPECT_THAT(std::string(Parse({"--listen", "unix:/t"}).status().message()), HasSubstr("--model"));
  EXPECT_THAT(std::string(Parse({"--model", "m", "--listen", "127.0.0.1:1"}).status().message()),
              HasSubstr("unix"));
}

TEST(WorkerOptionsTest, HelpIsNoError) {
  const auto help = Parse({"--help"});
  EXPECT_EQ(help.status().code(), absl::StatusCode::kOutOfRange);
  EXPECT_THAT(std::string(help.status().message()), HasSubstr("--kv-pages"));
}

}  // namespace
}  // namespace tandem::worker
