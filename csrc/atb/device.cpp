// SPDX-License-Identifier: Apache-2.0
#include "atb/device.h"

#include <algorithm>
#include <utility>

#include "atb/status.h"
#include "atb_core/types.h"

namespace atb_core::ascend {
namespace {

// ACL is initialized once in a process; torch_npu may have done it.
constexpr aclError kRepeatedInitialize = 100002;
// The thread may have no device yet.
constexpr aclError kNoneChosen = 107002;

void initialize_once() {
  const aclError status = aclInit(nullptr);
  if (status != kRepeatedInitialize) check_acl(status, "starting ACL failed");
}

}  // namespace

ChosenDevice::ChosenDevice(int id) noexcept : id_(id), status_(aclrtGetDevice(&previous_)) {
  if (status_ == kNoneChosen) previous_ = -1;
  if (status_ != ACL_SUCCESS && status_ != kNoneChosen) return;
  status_ = previous_ == id_ ? ACL_SUCCESS : aclrtSetDevice(id_);
}

ChosenDevice::~ChosenDevice() {
  if (previous_ >= 0 && previous_ != id_) aclrtSetDevice(previous_);
}

Lease::Lease(Device& device) : lock_(device.mutex_), chosen_(device.options_.id) {
  if (device.shut_) fail("device ", device.options_.id, " was closed, for the process ends");
  check_acl(chosen_.status(), "choosing device ", device.options_.id, " failed");
  device.drop_discarded();
  device.complain();
}

void DeviceMemory::release() {
  if (data_ == nullptr || owner_->shut_) return;
  owner_->released("device memory", aclrtFree(std::exchange(data_, nullptr)));
  bytes_ = 0;
}

void DeviceMemory::swap(DeviceMemory& other) noexcept {
  std::swap(owner_, other.owner_);
  std::swap(data_, other.data_);
  std::swap(bytes_, other.bytes_);
}

Device::Device(const Options& options) : options_(options) {
  try {
    open();
  } catch (...) {
    close();
    throw;
  }
}

void Device::open() {
  initialize_once();
  uint32_t count = 0;
  check_acl(aclrtGetDeviceCount(&count), "counting the devices failed");
  if (options_.id < 0 || static_cast<uint32_t>(options_.id) >= count) {
    fail("there is no device ", options_.id, "; this machine has ", count);
  }
  const ChosenDevice chosen(options_.id);
  check_acl(chosen.status(), "opening device ", options_.id, " failed");
  const char* soc = aclrtGetSocName();
  if (soc == nullptr) fail("device ", options_.id, " does not tell its name");
  soc_name_ = soc;
  info_ = find_device(soc_name_);
  info_.transposes = info_.transposes && options_.auto_transpose;
  stream_ = options_.stream;
  if (stream_ == nullptr) check_acl(aclrtCreateStream(&stream_), "making a stream failed");
  check_atb(::atb::CreateContext(&context_), "making an ATB context failed");
  check_atb(context_->SetExecuteStream(stream_), "giving the ATB context its stream failed");
}

Device::~Device() { close(); }

void Device::close() noexcept {
  if (stream_ == nullptr || shut_) return;
  const ChosenDevice chosen(options_.id);  // the last owner may be any thread
  settle();
  drop_discarded();
  if (staging_ != nullptr) aclrtFreeHost(std::exchange(staging_, nullptr));
  arena_ = DeviceMemory();
  workspace_ = DeviceMemory();
  if (context_ != nullptr) ::atb::DestroyContext(std::exchange(context_, nullptr));
  if (options_.stream == nullptr) aclrtDestroyStream(std::exchange(stream_, nullptr));
}

void Device::shut() noexcept {
  const std::lock_guard lock(mutex_);
  close();
  shut_ = true;
}

void Device::discard(std::vector<DeviceMemory> memory) noexcept {
  {
    const std::lock_guard lock(discarded_mutex_);
    for (DeviceMemory& one : memory) discarded_.push_back(std::move(one));
  }
  const std::unique_lock lock(mutex_, std::try_to_lock);
  if (!lock.owns_lock() || shut_) return;
  const ChosenDevice chosen(options_.id);
  drop_discarded();
}

void Device::drop_discarded() noexcept {
  std::vector<DeviceMemory> dropped;
  const std::lock_guard lock(discarded_mutex_);
  dropped.swap(discarded_);
}

void Device::choose() { check_acl(aclrtSetDevice(options_.id), "choosing device ", options_.id, " failed"); }

void Device::released(const char* what, aclError status) {
  if (status == ACL_SUCCESS) return;
  failed_release_ = std::string("giving back ") + what + " failed: ACL reports " + acl_status_text(status);
}

void Device::complain() {
  if (!failed_release_.empty()) fail(std::exchange(failed_release_, {}));
}

DeviceMemory Device::allocate(size_t bytes, const char* purpose) {
  void* data = nullptr;
  const aclError status = aclrtMalloc(&data, std::max<size_t>(bytes, 1), ACL_MEM_MALLOC_HUGE_FIRST);
  if (status != ACL_SUCCESS) {
    const std::string reason = acl_status_text(status);
    size_t free = 0, total = 0;
    const bool known = aclrtGetMemInfo(ACL_HBM_MEM, &free, &total) == ACL_SUCCESS;
    const std::string left = known ? std::to_string(free >> 20) + " of " + std::to_string(total >> 20) + " MiB are free"
                                   : "how much is free is not known";
    fail("device ", options_.id, " (", soc_name_, ") has no ", (bytes >> 20) + 1, " MiB for ", purpose, ": ", left,
         "; ACL reports ", reason);
  }
  return DeviceMemory(this, static_cast<std::byte*>(data), bytes);
}

Device::MemoryInfo Device::memory() const {
  MemoryInfo info{};
  check_acl(aclrtGetMemInfo(ACL_HBM_MEM, &info.free, &info.total), "asking for the device's memory failed");
  return info;
}

void Device::upload(void* device, const void* host, size_t bytes) {
  if (bytes == 0) return;
  check_acl(aclrtMemcpy(device, bytes, host, bytes, ACL_MEMCPY_HOST_TO_DEVICE), "copying ", bytes,
            " bytes to the device failed");
}

void Device::download(void* host, const void* device, size_t bytes) {
  if (bytes == 0) return;
  check_acl(aclrtMemcpy(host, bytes, device, bytes, ACL_MEMCPY_DEVICE_TO_HOST), "copying ", bytes,
            " bytes from the device failed");
}

void Device::upload_staged(void* device, const std::byte* staged, size_t bytes) {
  if (bytes == 0) return;
  check_acl(aclrtMemcpyAsync(device, bytes, staged, bytes, ACL_MEMCPY_HOST_TO_DEVICE, stream_), "copying ", bytes,
            " bytes to the device failed");
}

void Device::copy(void* to, const void* from, size_t bytes) {
  if (bytes == 0) return;
  check_acl(aclrtMemcpyAsync(to, bytes, from, bytes, ACL_MEMCPY_DEVICE_TO_DEVICE, stream_), "copying ", bytes,
            " bytes on the device failed");
}

void Device::synchronize() { check_acl(aclrtSynchronizeStream(stream_), "an operation failed on the device"); }

void Device::settle() noexcept { aclrtSynchronizeStream(stream_); }

std::byte* Device::staging(size_t bytes) {
  if (bytes <= staging_bytes_) return staging_;
  synchronize();
  if (staging_ != nullptr) check_acl(aclrtFreeHost(std::exchange(staging_, nullptr)), "giving back host memory failed");
  staging_bytes_ = 0;
  void* data = nullptr;
  check_acl(aclrtMallocHost(&data, bytes), "the host has no ", bytes, " bytes that the device can reach, for inputs");
  staging_ = static_cast<std::byte*>(data);
  staging_bytes_ = bytes;
  return staging_;
}

std::byte* Device::grown(DeviceMemory& memory, size_t bytes, const char* purpose) {
  if (bytes <= memory.bytes()) return memory.data();
  synchronize();
  // The old memory is freed first: both may not fit together. Half as much again avoids growing for every longer
  // prompt.
  const size_t wanted = align_up(std::max(bytes, memory.bytes() * 3 / 2), 512);
  memory = DeviceMemory();
  complain();
  memory = allocate(wanted, purpose);
  return memory.data();
}

}  // namespace atb_core::ascend
