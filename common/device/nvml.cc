#include "common/device/nvml.h"

#include <dlfcn.h>
#include <unistd.h>

#include <vector>

#include "absl/strings/str_cat.h"
#include "common/base/status_macros.h"

namespace tandem {
namespace {

// The parts of nvml.h that are used, as its versions named below lay them out.
using NvmlReturn = int;  // 0: fine
using NvmlDevice = void*;
struct NvmlMemory {
  unsigned long long total, free, used;  // NOLINT(google-runtime-int): the driver's
};
struct NvmlPci {  // nvmlPciInfo_t, version 3
  char bus_id_legacy[16];
  unsigned int domain, bus, device, pci_device_id, pci_subsystem_id;
  char bus_id[32];
};
struct NvmlProcess {  // nvmlProcessInfo_t of the functions of version 2 and 3
  unsigned int pid;
  unsigned long long used_bytes;  // NOLINT(google-runtime-int): the driver's
  unsigned int gpu_instance_id, compute_instance_id;
};

constexpr NvmlReturn kInsufficientSize = 7;
constexpr int64_t kContextBytesOfMultiprocessor = int64_t{4} << 20;
constexpr int64_t kUnknownContextBytes = int64_t{256} << 20;

}  // namespace

struct Nvml::Functions {
  NvmlReturn (*init)() = nullptr;
  NvmlReturn (*shutdown)() = nullptr;
  NvmlReturn (*count)(unsigned int*) = nullptr;
  NvmlReturn (*by_index)(unsigned int, NvmlDevice*) = nullptr;
  NvmlReturn (*by_bus)(const char*, NvmlDevice*) = nullptr;
  NvmlReturn (*name)(NvmlDevice, char*, unsigned int) = nullptr;
  NvmlReturn (*memory)(NvmlDevice, NvmlMemory*) = nullptr;
  NvmlReturn (*pci)(NvmlDevice, NvmlPci*) = nullptr;
  NvmlReturn (*processes)(NvmlDevice, unsigned int*, NvmlProcess*) = nullptr;
  // Newer drivers only.
  NvmlReturn (*cores)(NvmlDevice, unsigned int*) = nullptr;
  NvmlReturn (*capability)(NvmlDevice, int*, int*) = nullptr;
};

absl::StatusOr<std::unique_ptr<Nvml>> Nvml::Open() {
  std::unique_ptr<Nvml> nvml(new Nvml());
  nvml->library_ = dlopen("libnvidia-ml.so.1", RTLD_NOW | RTLD_LOCAL);
  if (nvml->library_ == nullptr) {
    return absl::UnavailableError("there is no NVIDIA driver here (libnvidia-ml.so.1)");
  }
  auto functions = std::make_unique<Functions>();
  bool is_whole = true;
  const auto load = [&](const char* name, auto* function, bool is_needed = true) {
    *function =
        reinterpret_cast<std::remove_pointer_t<decltype(function)>>(dlsym(nvml->library_, name));
    is_whole = is_whole && (*function != nullptr || !is_needed);
  };
  load("nvmlInit_v2", &functions->init);
  load("nvmlShutdown", &functions->shutdown);
  load("nvmlDeviceGetCount_v2", &functions->count);
  load("nvmlDeviceGetHandleByIndex_v2", &functions->by_index);
  load("nvmlDeviceGetHandleByPciBusId_v2", &functions->by_bus);
  load("nvmlDeviceGetName", &functions->name);
  load("nvmlDeviceGetMemoryInfo", &functions->memory);
  load("nvmlDeviceGetPciInfo_v3", &functions->pci);
  load("nvmlDeviceGetComputeRunningProcesses_v3", &functions->processes, false);
  load("nvmlDeviceGetNumGpuCores", &functions->cores, false);
  load("nvmlDeviceGetCudaComputeCapability", &functions->capability, false);
  unsigned int count = 0;
  if (!is_whole || functions->init() != 0) {
    return absl::UnavailableError("the NVIDIA driver's NVML does not start");
  }
  nvml->functions_ = std::move(functions);
  if (nvml->functions_->count(&count) != 0) {
    return absl::UnavailableError("NVML does not say how many GPUs there are");
  }
  nvml->num_gpus_ = static_cast<int32_t>(count);
  return nvml;
}

Nvml::~Nvml() {
  if (functions_ != nullptr) functions_->shutdown();
  if (library_ != nullptr) dlclose(library_);
}

absl::StatusOr<GpuFacts> Nvml::Facts(int32_t gpu) const {
  NvmlDevice device = nullptr;
  if (gpu < 0 || gpu >= num_gpus_ ||
      functions_->by_index(static_cast<unsigned int>(gpu), &device) != 0) {
    return absl::NotFoundError(absl::StrCat("there is no GPU ", gpu, ", NVML knows ", num_gpus_));
  }
  GpuFacts facts;
  char name[96] = {};
  NvmlMemory memory = {};
  NvmlPci pci = {};
  if (functions_->name(device, name, sizeof(name)) != 0 ||
      functions_->memory(device, &memory) != 0 || functions_->pci(device, &pci) != 0) {
    return absl::UnavailableError(absl::StrCat("NVML does not tell about GPU ", gpu));
  }
  name[sizeof(name) - 1] = '\0';
  pci.bus_id[sizeof(pci.bus_id) - 1] = '\0';
  facts.name = name;
  facts.bus_id = pci.bus_id;
  facts.total_bytes = static_cast<int64_t>(memory.total);
  facts.free_bytes = static_cast<int64_t>(memory.free);
  facts.context_bytes = kUnknownContextBytes;
  unsigned int cores = 0;
  int major = 0;
  int minor = 0;
  if (functions_->cores != nullptr && functions_->capability != nullptr &&
      functions_->cores(device, &cores) == 0 &&
      functions_->capability(device, &major, &minor) == 0) {
    const int64_t cores_each = major * 10 + minor <= 80 ? 64 : 128;
    facts.context_bytes = cores / cores_each * kContextBytesOfMultiprocessor;
  }
  return facts;
}

absl::StatusOr<int64_t> Nvml::OwnBytes(const std::string& bus_id) const {
  NvmlDevice device = nullptr;
  if (functions_->by_bus(bus_id.c_str(), &device) != 0) {
    return absl::NotFoundError(absl::StrCat("NVML knows no GPU at ", bus_id));
  }
  std::vector<NvmlProcess> processes(64);
  auto count = static_cast<unsigned int>(processes.size());
  NvmlReturn result = 1;
  if (functions_->processes != nullptr) {
    result = functions_->processes(device, &count, processes.data());
    if (result == kInsufficientSize && count < 65536) {
      processes.resize(count + 16);
      count = static_cast<unsigned int>(processes.size());
      result = functions_->processes(device, &count, processes.data());
    }
  }
  const auto own = static_cast<unsigned int>(getpid());
  for (size_t i = 0; result == 0 && i < count && i < processes.size(); ++i) {
    if (processes[i].pid == own && processes[i].used_bytes < (1ull << 50)) {
      return static_cast<int64_t>(processes[i].used_bytes);
    }
  }
  return absl::NotFoundError("the driver does not see this process by its number");
}

}  // namespace tandem
