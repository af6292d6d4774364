#include "common/base/host_memory.h"

#include <filesystem>
#include <fstream>

#include "gtest/gtest.h"

namespace tandem {
namespace {

constexpr int64_t kTotal = int64_t{16} << 30;
constexpr int64_t kAvailable = int64_t{12} << 30;

// A system of which only the files that matter are there.
class HostMemoryTest : public testing::Test {
 protected:
  HostMemoryTest() {
    char name[] = "/tmp/tandem_host_memory_XXXXXX";
    root_ = mkdtemp(name);
    Write("proc/meminfo",
          "MemTotal:       16777216 kB\nMemFree:         1000 kB\n"
          "MemAvailable:   12582912 kB\n");
  }
  ~HostMemoryTest() override { std::filesystem::remove_all(root_); }

  void Write(const std::string& path, const std::string& text) {
    const std::filesystem::path whole = root_ + "/" + path;
    std::filesystem::create_directories(whole.parent_path());
    std::ofstream(whole) << text;
  }
  void Expect(int64_t total, int64_t available) {
    const HostMemory memory = ReadHostMemory(root_);
    EXPECT_EQ(memory.total_bytes, total);
    EXPECT_EQ(memory.available_bytes, available);
  }

  std::string root_;
};

TEST_F(HostMemoryTest, WithoutCgroupsItIsTheMachines) { Expect(kTotal, kAvailable); }

TEST_F(HostMemoryTest, WithoutProcItIsUnknown) {
  std::filesystem::remove_all(root_ + "/proc");
  Expect(0, 0);
}

TEST_F(HostMemoryTest, Version2LimitsWithWhatCanBeDropped) {
  Write("proc/self/cgroup", "0::/\n");
  Write("sys/fs/cgroup/memory.max", "1000000\n");
  Write("sys/fs/cgroup/memory.current", "700000\n");
  Write("sys/fs/cgroup/memory.stat", "anon 400000\ninactive_file 200000\nactive_file 9\n");
  Expect(1000000, 500000);
  Write("sys/fs/cgroup/memory.max", "max\n");
  Expect(kTotal, kAvailable);
}

TEST_F(HostMemoryTest, TheTightestOfTheGroupsAboveCounts) {
  Write("proc/self/cgroup", "0::/user.slice/job\n");
  Write("sys/fs/cgroup/user.slice/memory.max", "500000\n");
  Write("sys/fs/cgroup/user.slice/memory.current", "450000\n");
  Write("sys/fs/cgroup/user.slice/job/memory.max", "max\n");
  Write("sys/fs/cgroup/user.slice/job/memory.current", "1000\n");
  Expect(500000, 50000);
  Write("sys/fs/cgroup/user.slice/memory.current", "600000\n");  // over it already
  Expect(500000, 0);
}

TEST_F(HostMemoryTest, Version1AmongOtherControllers) {
  Write("proc/self/cgroup", "5:devices:/x\n4:cpu,memory:/docker/ab:c\n1:name=systemd:/x\n");
  Write("sys/fs/cgroup/memory/docker/ab:c/memory.limit_in_bytes", "2000000\n");
  Write("sys/fs/cgroup/memory/docker/ab:c/memory.usage_in_bytes", "500000\n");
  Write("sys/fs/cgroup/memory/docker/ab:c/memory.stat",
        "inactive_file 1\ntotal_inactive_file 100000\n");
  Expect(2000000, 1600000);
}

// Docker with version 1: the path is the host's, the container's own group is the mount.
TEST_F(HostMemoryTest, APathThatIsNotThereIsTheMountItself) {
  Write("proc/self/cgroup", "4:memory:/docker/0123\n");
  Write("sys/fs/cgroup/memory/memory.limit_in_bytes", "3000000\n");
  Write("sys/fs/cgroup/memory/memory.usage_in_bytes", "1000000\n");
  Expect(3000000, 2000000);
}

TEST_F(HostMemoryTest, NoLimitInVersion1IsAHugeNumber) {
  Write("proc/self/cgroup", "4:memory:/\n");
  Write("sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n");
  Write("sys/fs/cgroup/memory/memory.usage_in_bytes", "1000000\n");
  Expect(kTotal, kAvailable);
}

TEST_F(HostMemoryTest, KillsForWantOfMemoryAreThoseOfTheOwnGroup) {
  Write("proc/vmstat", "pgfault 5\noom_kill 9\n");
  EXPECT_EQ(CountOomKills(root_), 9);  // no group counts: the machine's
  Write("proc/self/cgroup", "0::/job\n");
  Write("sys/fs/cgroup/memory.events", "low 0\noom 4\noom_kill 3\n");
  EXPECT_EQ(CountOomKills(root_), 3);  // a container: its group is the top one
  Write("sys/fs/cgroup/job/memory.events", "low 0\noom 1\noom_kill 0\n");
  EXPECT_EQ(CountOomKills(root_), 0);
  Write("proc/self/cgroup", "4:memory:/a\n0::/\n");
  Write("sys/fs/cgroup/memory/a/memory.oom_control", "under_oom 0\noom_kill 7\n");
  EXPECT_EQ(CountOomKills(root_), 7);
}

}  // namespace
}  // namespace tandem
