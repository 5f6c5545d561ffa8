// SPDX-License-Identifier: Apache-2.0
#include "memory.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <map>
#include <mutex>
#include <new>

#include "state.h"

namespace atb::sim {
namespace {

constexpr size_t kSpan = size_t{128} << 30;  // addresses, not memory: pages come when they are written
constexpr size_t kAlignment = 512;
// Small allocations begin as NaN and as nonsense integers, so that reading what was never written shows. Filling large
// ones would cost the memory that a cache does not use.
constexpr size_t kFilled = size_t{4} << 20;

class Device {
 public:
  Device() {
    file_ = memfd_create("simulated device", MFD_CLOEXEC);
    if (file_ < 0 || ftruncate(file_, kSpan) != 0) throw std::bad_alloc();
    addresses_ = map(PROT_NONE);
    window_ = map(PROT_READ | PROT_WRITE);
  }

  void* allocate(size_t bytes) {
    if (bytes > kSpan) return nullptr;
    const size_t wanted = (std::max<size_t>(bytes, 1) + kAlignment - 1) / kAlignment * kAlignment;
    const std::lock_guard lock(mutex_);
    if (used_ + wanted > capacity()) return nullptr;
    size_t offset = 0;
    for (const auto& [begin, size] : live_) {
      if (begin - offset >= wanted) break;
      offset = begin + size;
    }
    if (offset + wanted > kSpan) return nullptr;
    live_[offset] = wanted;
    used_ += wanted;
    if (wanted <= kFilled) std::memset(window_ + offset, 0xFF, wanted);
    account([&](Counters& now) {
      now.live_bytes += wanted;
      now.peak_bytes = std::max(now.peak_bytes, now.live_bytes);
      ++now.live_allocations;
      ++now.allocations;
    });
    return addresses_ + offset;
  }

  bool release(void* address) {
    const std::lock_guard lock(mutex_);
    if (!contains(address)) return false;
    const auto found = live_.find(static_cast<size_t>(static_cast<std::byte*>(address) - addresses_));
    if (found == live_.end()) return false;
    const auto [offset, size] = *found;
    live_.erase(found);
    used_ -= size;
    // Returns the pages to the system; a new allocation here starts with fresh ones.
    fallocate(file_, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, static_cast<off_t>(offset), static_cast<off_t>(size));
    account([&](Counters& now) {
      now.live_bytes -= size;
      --now.live_allocations;
    });
    return true;
  }

  bool contains(const void* address) const { return within(address, addresses_); }

  bool is_live(const void* address, size_t bytes, std::string& why) const {
    const std::lock_guard lock(mutex_);
    if (!contains(address)) {
      why = "it is no address of the device";
      return false;
    }
    const size_t offset = static_cast<size_t>(static_cast<const std::byte*>(address) - addresses_);
    auto found = live_.upper_bound(offset);
    if (found == live_.begin() || (--found)->first + found->second <= offset) {
      why = "nothing is allocated there";
      return false;
    }
    if (found->first + found->second - offset < bytes) {
      why = "only " + std::to_string(found->first + found->second - offset) +
            " bytes are allocated from there on, not " + std::to_string(bytes);
      return false;
    }
    return true;
  }

  void* window(const void* address) const {
    return contains(address) ? window_ + (static_cast<const std::byte*>(address) - addresses_) : nullptr;
  }
  void* device_address(const void* address) const {
    return within(address, window_) ? addresses_ + (static_cast<const std::byte*>(address) - window_) : nullptr;
  }

 private:
  static bool within(const void* address, const std::byte* base) { return address >= base && address < base + kSpan; }
  std::byte* map(int protection) const {
    void* address = mmap(nullptr, kSpan, protection, MAP_SHARED | MAP_NORESERVE, file_, 0);
    if (address == MAP_FAILED) throw std::bad_alloc();
    return static_cast<std::byte*>(address);
  }

  int file_ = -1;
  std::byte *addresses_ = nullptr, *window_ = nullptr;
  mutable std::mutex mutex_;
  std::map<size_t, size_t> live_;  // offset, size
  uint64_t used_ = 0;
};

// Never destroyed: streams may still work when the process ends.
Device& device() {
  static Device* const kDevice = new Device;
  return *kDevice;
}

}  // namespace

uint64_t capacity() { return std::min<uint64_t>(memory_limit(), kSpan); }
void* allocate(size_t bytes) { return device().allocate(bytes); }
bool release(void* address) { return device().release(address); }
bool is_device_address(const void* address) { return device().contains(address); }
bool is_live(const void* address, size_t bytes, std::string& why) { return device().is_live(address, bytes, why); }
void* window(const void* address) { return device().window(address); }
void* device_address(const void* address) { return device().device_address(address); }

}  // namespace atb::sim
