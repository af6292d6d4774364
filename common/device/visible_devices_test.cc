#include "common/device/visible_devices.h"

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace tandem {
namespace {

using testing::HasSubstr;

TEST(VisibleDevicesTest, ClientsOfMpsCountAmongWhatItsDaemonSees) {
  EXPECT_EQ(VisibleToMpsClients("1"), "0");
  EXPECT_EQ(VisibleToMpsClients("3,1,2"), "0,1,2");
  EXPECT_EQ(VisibleToMpsClients("2,-1,0"), "0");  // CUDA ends a list there
}

TEST(VisibleDevicesTest, UuidsNameTheSameGpuToBoth) {
  for (const char* visible : {"", "-1", "GPU-747d9138", "MIG-12ab,GPU-747d9138"}) {
    EXPECT_EQ(VisibleToMpsClients(visible), visible);
  }
}

TEST(VisibleDevicesTest, ADeviceIsLookedUpInTheList) {
  EXPECT_EQ(MachineDevice(0, "").value(), 0);
  EXPECT_EQ(MachineDevice(1, "").value(), 1);
  EXPECT_EQ(MachineDevice(0, "1").value(), 1);
  EXPECT_EQ(MachineDevice(1, "2,5").value(), 5);
  EXPECT_EQ(MachineDevice(0, "GPU-747d9138").value(), 0);
}

TEST(VisibleDevicesTest, ADeviceBeyondTheListIsRefusedByName) {
  const absl::StatusOr<int32_t> device = MachineDevice(1, "1");
  EXPECT_EQ(device.status().code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(device.status().message(), HasSubstr("CUDA_VISIBLE_DEVICES=1 shows 1 of the GPUs"));
}

}  // namespace
}  // namespace tandem
