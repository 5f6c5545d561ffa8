// SPDX-License-Identifier: Apache-2.0
// A device: its stream, its ATB context, and its memory. Everything of a model that runs there shares one.
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

// The calling thread's device while this lives; afterwards the thread has the one back that it had: torch counts on it.
class ChosenDevice {
 public:
  // Throws nothing: status() tells how it went.
  explicit ChosenDevice(int id) noexcept;
  ~ChosenDevice();
  ChosenDevice(const ChosenDevice&) = delete;
  ChosenDevice& operator=(const ChosenDevice&) = delete;
  aclError status() const { return status_; }

 private:
  int32_t id_, previous_ = -1;
  aclError status_;
};

// The right to use a device, for one thread at a time.
class Lease {
 public:
  explicit Lease(Device& device);

 private:
  std::unique_lock<std::mutex> lock_;
  ChosenDevice chosen_;
};

// Owned memory of a device. The content is undefined.
class DeviceMemory {
 public:
  DeviceMemory() = default;
  ~DeviceMemory() { release(); }
  DeviceMemory(DeviceMemory&& other) noexcept { swap(other); }
  DeviceMemory& operator=(DeviceMemory&& other) noexcept {
    swap(other);
    return *this;
  }

  // An address on the device: the host must not read there.
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

// All calls that reach the device need the lock, but for the constructor and what only tells properties.
class Device {
 public:
  struct Options {
    int id = 0;
    // A stream of somebody else's (torch_npu's), who keeps it alive; null: one of its own.
    void* stream = nullptr;
    // Operations are launched by a second thread while the first prepares the next ones.
    bool execute_async = false;
    // The host waits after each segment, so that a failure is found where it happens.
    bool launch_blocking = false;
    // Weights may be kept transposed where a matrix product is faster by that.
    bool auto_transpose = true;
  };

  // Throws Error when there is no such device, or this backend does not run on it.
  explicit Device(const Options& options);
  ~Device();
  Device(const Device&) = delete;
  Device& operator=(const Device&) = delete;

  const Options& options() const { return options_; }
  // What the chip can do, and the options leave it.
  const DeviceInfo& info() const { return info_; }
  const std::string& soc_name() const { return soc_name_; }
  aclrtStream stream() const { return stream_; }
  ::atb::Context* context() const { return context_; }

  // Held while something runs; also makes the device the calling thread's. Throws Error for what went wrong where
  // nothing could be thrown, and after shut().
  Lease lease() { return Lease(*this); }
  // For the end of a process, where ACL and somebody else's stream may be gone before the last objects are: waits, and
  // closes the device. What is destroyed later is left to the driver.
  void shut() noexcept;
  bool is_shut() const { return shut_; }
  // Gives memory back without waiting for the lease, for destructors: at once, or with the next lease if somebody has
  // it. (Who waits in a destructor may hold what the one with the lease waits for: Python's lock.)
  void discard(std::vector<DeviceMemory> memory) noexcept;
  // Makes the device that of the calling thread.
  void choose();

  // Throws Error that tells what the memory was for and how much is left.
  DeviceMemory allocate(size_t bytes, const char* purpose);
  struct MemoryInfo {
    size_t free, total;
  };
  MemoryInfo memory() const;

  // At once, and not in the order of the stream: for when it has nothing to do.
  void upload(void* device, const void* host, size_t bytes);
  void download(void* host, const void* device, size_t bytes);
  // In the order of the stream; both sides stay as they are until synchronize().
  void upload_staged(void* device, const std::byte* staged, size_t bytes);
  void copy(void* to, const void* from, size_t bytes);
  // Waits for everything on the stream; throws Error for what failed there.
  void synchronize();
  // Waits without complaint: after an error, before memory is given back that the stream may still use.
  void settle() noexcept;

  // Working memory of at least so many bytes, kept for the next call. What the stream still uses is waited for when
  // it has to grow.
  std::byte* arena(size_t bytes) { return grown(arena_, bytes, "activations"); }
  std::byte* workspace(size_t bytes) { return grown(workspace_, bytes, "ATB's workspace"); }
  // The same of memory of the host that the device can reach by itself: only from there copies go without waiting.
  std::byte* staging(size_t bytes);
  bool workspace_fits(size_t bytes) const { return bytes <= workspace_.bytes(); }
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
