// SPDX-License-Identifier: Apache-2.0
// A device: its stream, its ATB context, and its memory. All models on the device share one object.
#pragma once

#include <acl/acl.h>
#include <atb/atb_infer.h>

#include <atomic>
#include <cstddef>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "atb/device_table.h"

namespace atb_core::ascend {

class Device;

// Makes a device that of the calling thread as long as the object lives, then restores the previous one, which torch
// relies on.
class ChosenDevice {
 public:
  // Does not throw; status() has the result.
  explicit ChosenDevice(int id) noexcept;
  ~ChosenDevice();
  ChosenDevice(const ChosenDevice&) = delete;
  ChosenDevice& operator=(const ChosenDevice&) = delete;
  aclError status() const { return status_; }

 private:
  int32_t id_, previous_ = -1;
  aclError status_;
};

// Exclusive use of a device by one thread.
class Lease {
 public:
  explicit Lease(Device& device);

 private:
  std::unique_lock<std::mutex> lock_;
  ChosenDevice chosen_;
};

// Owns memory of a device. The content is undefined.
class DeviceMemory {
 public:
  DeviceMemory() = default;
  ~DeviceMemory() { release(); }
  DeviceMemory(DeviceMemory&& other) noexcept { swap(other); }
  DeviceMemory& operator=(DeviceMemory&& other) noexcept {
    swap(other);
    return *this;
  }

  // Returns an address on the device, which the host must not read.
  std::byte* data() const { return data_; }
  size_t bytes() const { return bytes_; }

 private:
  friend class Device;
  DeviceMemory(Device* owner, std::byte* data, size_t bytes) : owner_(owner), data_(data), bytes_(bytes) {}
  void release();
  void swap(DeviceMemory& other) noexcept;

  Device* owner_ = nullptr;
  std::byte* data_ = nullptr;
  size_t bytes_ = 0;
};

// All calls that reach the device need the lease, except the constructor and functions that return properties.
class Device {
 public:
  struct Options {
    int id = 0;
    // A stream of another owner (torch_npu), which keeps it alive; null: the device creates one.
    void* stream = nullptr;
    // A second thread launches operations while the first prepares the next ones.
    bool execute_async = false;
    // The host waits after each segment, so that a failure is reported where it happens.
    bool launch_blocking = false;
    // Weights may be stored transposed where that makes a matrix product faster.
    bool auto_transpose = true;
  };

  // Throws Error if there is no such device or this backend does not support it.
  explicit Device(const Options& options);
  ~Device();
  Device(const Device&) = delete;
  Device& operator=(const Device&) = delete;

  const Options& options() const { return options_; }
  // Returns the properties of the chip, reduced by the options.
  const DeviceInfo& info() const { return info_; }
  const std::string& soc_name() const { return soc_name_; }
  aclrtStream stream() const { return stream_; }
  ::atb::Context* context() const { return context_; }

  // Returns exclusive use of the device, which also makes it the calling thread's. Throws Error after shut(), and for a
  // failure in a place that could not throw.
  Lease lease() { return Lease(*this); }
  // Waits and closes the device at the end of a process, when ACL and a stream of another owner may end before the last
  // objects. Objects that are destroyed later are left to the driver.
  void shut() noexcept;
  bool is_shut() const { return shut_; }
  // Frees memory without waiting for the lease, for destructors: at once, or with the next lease if another thread
  // holds it. (A destructor that waits may hold Python's lock, for which the holder of the lease waits.)
  void discard(std::vector<DeviceMemory> memory) noexcept;
  // Makes this device that of the calling thread.
  void choose();

  // Throws Error with the purpose of the memory and the amount that is left.
  DeviceMemory allocate(size_t bytes, const char* purpose);
  struct MemoryInfo {
    size_t free, total;
  };
  MemoryInfo memory() const;

  // Copies at once, not in the order of the stream: only while the stream is idle.
  void upload(void* device, const void* host, size_t bytes);
  void download(void* host, const void* device, size_t bytes);
  // Copies in the order of the stream; both sides must not change until synchronize().
  void upload_staged(void* device, const std::byte* staged, size_t bytes);
  void copy(void* to, const void* from, size_t bytes);
  // Waits for the stream; throws Error for a failure there.
  void synchronize();
  // Waits and ignores failures: after an error, before memory is freed that the stream may still use.
  void settle() noexcept;

  // Returns working memory of at least this size, kept for the next call. Waits for the stream if it has to grow.
  std::byte* arena(size_t bytes) { return grown(arena_, bytes, "activations"); }
  std::byte* workspace(size_t bytes) { return grown(workspace_, bytes, "ATB's workspace"); }
  // Returns the same of host memory that the device can reach: only such memory is copied asynchronously.
  std::byte* staging(size_t bytes);
  bool workspace_fits(size_t bytes) const { return bytes <= workspace_.bytes(); }
  // Keeps a failure of a destructor, which must not throw: the next use of the device does.
  void released(const char* what, aclError status);
  size_t workspace_bytes() const { return arena_.bytes() + workspace_.bytes(); }

 private:
  friend class DeviceMemory;
  friend class Lease;
  std::byte* grown(DeviceMemory& memory, size_t bytes, const char* purpose);
  void complain();
  void drop_discarded() noexcept;
  void open();
  void close() noexcept;

  const Options options_;
  std::string soc_name_;
  DeviceInfo info_{};
  aclrtStream stream_ = nullptr;
  ::atb::Context* context_ = nullptr;
  std::mutex mutex_;
  std::string failed_release_;
  DeviceMemory arena_, workspace_;
  std::mutex discarded_mutex_;
  std::vector<DeviceMemory> discarded_;
  std::byte* staging_ = nullptr;
  size_t staging_bytes_ = 0;
  std::atomic<bool> shut_ = false;
};

}  // namespace atb_core::ascend
