// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <utility>

namespace atb_core {

// A file in memory, read only. All processes that map it have the same pages.
class FileMapping {
 public:
  // Throws Error if the first `bytes` bytes of the file cannot be mapped; there must be that many.
  FileMapping(int descriptor, size_t bytes);
  ~FileMapping();
  FileMapping(const FileMapping&) = delete;
  FileMapping& operator=(const FileMapping&) = delete;

  const std::byte* data() const { return data_; }
  size_t bytes() const { return bytes_; }

 private:
  const std::byte* data_ = nullptr;
  size_t bytes_ = 0;
};

// Owns memory, 64-byte aligned. From 128 KiB up it lies in huge pages, because streaming weights through 4 KiB pages
// costs a page walk every 64 lines. The content is undefined.
class Buffer {
 public:
  Buffer() = default;
  explicit Buffer(size_t bytes);
  // A part of a file, which keeps it mapped. Nothing may write to it.
  Buffer(std::shared_ptr<const FileMapping> file, size_t offset, size_t bytes)
      : data_(const_cast<std::byte*>(file->data()) + offset), bytes_(bytes), file_(std::move(file)) {}
  ~Buffer() { release(); }
  Buffer(Buffer&& other) noexcept
      : data_(std::exchange(other.data_, nullptr)),
        bytes_(std::exchange(other.bytes_, 0)),
        file_(std::move(other.file_)) {}
  Buffer& operator=(Buffer&& other) noexcept {
    std::swap(data_, other.data_);
    std::swap(bytes_, other.bytes_);
    std::swap(file_, other.file_);
    return *this;
  }

  std::byte* data() const { return data_; }
  size_t bytes() const { return bytes_; }
  bool is_mapped() const { return file_ != nullptr; }

 private:
  void release();
  std::byte* data_ = nullptr;
  size_t bytes_ = 0;
  std::shared_ptr<const FileMapping> file_;
};

// Reads bytes of a file from `offset` on; false if that fails, or there are fewer.
bool read_file(int descriptor, int64_t offset, std::byte* out, size_t bytes);

inline constexpr size_t kHugePage = size_t{2} << 20;

// Asks for huge pages where [begin, end) has no memory yet, of whole huge pages: what is next to it is asked for, too.
// Without effect where the operating system grants none, or memory is not the process's own.
void ask_for_huge_pages(const std::byte* begin, const std::byte* end);

}  // namespace atb_core
