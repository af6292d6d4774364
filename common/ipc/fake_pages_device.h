// A "device" whose memory is a memfd, for tests: what can go wrong with a real one goes wrong
// when asked to.
#pragma once

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cstring>
#include <memory>
#include <set>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/base/check.h"
#include "common/ipc/device_pages.h"

namespace tandem {

struct FakePagesDeviceOptions {
  std::string name = "NVIDIA Fake";
  uint8_t uuid = 7;  // of 16 such bytes
  std::set<PagesTransport> supported = {PagesTransport::kIpcHandle, PagesTransport::kFileDescriptor,
                                        PagesTransport::kSplit};
  // Another process's memory: cannot be opened, is a copy (what we write is not seen there),
  // or is something else.
  enum class Sharing { kWorks, kFails, kIsACopy, kIsOther };
  Sharing sharing = Sharing::kWorks;
};

class FakePagesDevice : public PagesDevice {
 public:
  explicit FakePagesDevice(FakePagesDeviceOptions options = {}) : options_(std::move(options)) {
    std::memset(uuid_, options_.uuid, sizeof(uuid_));
  }

  std::string name() const override { return options_.name; }
  absl::Span<const uint8_t> uuid() const override { return uuid_; }
  bool Supports(PagesTransport transport) const override {
    return options_.supported.contains(transport);
  }

  absl::StatusOr<MadePages> Make(PagesTransport transport, int64_t num_bytes) override {
    MadePages made;
    OwnedFd fd(memfd_create("fake-device", MFD_CLOEXEC));
    TANDEM_CHECK(ftruncate(fd.get(), num_bytes) == 0);
    // An IPC handle names memory that its maker has.
    const int64_t name[] = {getpid(), fd.get()};
    std::memcpy(made.handle.ipc_handle, name, sizeof(name));
    if (transport == PagesTransport::kFileDescriptor) made.fd = OwnedFd(dup(fd.get()));
    made.pages = std::make_unique<Pages>(std::move(fd), num_bytes, MAP_SHARED);
    return made;
  }

  absl::StatusOr<std::unique_ptr<DevicePages>> Open(const DevicePagesHandle& handle,
                                                    OwnedFd fd) override {
    const auto transport = static_cast<PagesTransport>(handle.transport);
    if (transport == PagesTransport::kSplit ||
        options_.sharing == FakePagesDeviceOptions::Sharing::kIsOther) {
      return std::move(Make(transport, handle.num_bytes)->pages);
    }
    if (transport == PagesTransport::kIpcHandle) {
      int64_t name[2];
      std::memcpy(name, handle.ipc_handle, sizeof(name));
      fd = OwnedFd(open(absl::StrCat("/proc/", name[0], "/fd/", name[1]).c_str(), O_RDWR));
    }
    if (!fd.is_open() || options_.sharing == FakePagesDeviceOptions::Sharing::kFails) {
      return absl::InternalError("the fake device opens nothing");
    }
    const bool is_copy = options_.sharing == FakePagesDeviceOptions::Sharing::kIsACopy;
    return std::make_unique<Pages>(std::move(fd), handle.num_bytes,
                                   is_copy ? MAP_PRIVATE : MAP_SHARED);
  }

 private:
  class Pages : public DevicePages {
   public:
    Pages(OwnedFd fd, int64_t num_bytes, int flags) : fd_(std::move(fd)), num_bytes_(num_bytes) {
      base_ = mmap(nullptr, num_bytes, PROT_READ | PROT_WRITE, flags, fd_.get(), 0);
      TANDEM_CHECK(base_ != MAP_FAILED);
    }
    ~Pages() override { munmap(base_, num_bytes_); }
    uint8_t* base() const override { return static_cast<uint8_t*>(base_); }
    absl::Status Read(int64_t offset, absl::Span<uint8_t> to, absl::Duration) override {
      std::memcpy(to.data(), base() + offset, to.size());
      return absl::OkStatus();
    }
    absl::Status Write(int64_t offset, absl::Span<const uint8_t> from, absl::Duration) override {
      std::memcpy(base() + offset, from.data(), from.size());
      return absl::OkStatus();
    }

   private:
    OwnedFd fd_;
    int64_t num_bytes_;
    void* base_;
  };

  FakePagesDeviceOptions options_;
  uint8_t uuid_[16];
};

}  // namespace tandem
