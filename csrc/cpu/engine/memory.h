// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <utility>

namespace atb_core {

// Owns memory, 64-byte aligned. From 2 MiB up it is aligned to 2 MiB and uses huge pages, because streaming weights
// through 4 KiB pages costs a page walk every 64 lines. The content is undefined.
class Buffer {
 public:
  Buffer() = default;
  explicit Buffer(size_t bytes);
  ~Buffer() { release(); }
  Buffer(Buffer&& other) noexcept
      : data_(std::exchange(other.data_, nullptr)), bytes_(std::exchange(other.bytes_, 0)) {}
  Buffer& operator=(Buffer&& other) noexcept {
    std::swap(data_, other.data_);
    std::swap(bytes_, other.bytes_);
    return *this;
  }

  std::byte* data() const { return data_; }
  size_t bytes() const { return bytes_; }

 private:
  void release();
  std::byte* data_ = nullptr;
  size_t bytes_ = 0;
};

}  // namespace atb_core
