// SPDX-License-Identifier: Apache-2.0
#include "cpu/engine/memory.h"

#include <cerrno>
#include <cstdint>
#include <cstdlib>
#include <cstring>

#include "atb_core/error.h"
#include "atb_core/types.h"

#if defined(__linux__)
#include <sys/mman.h>
#include <unistd.h>
#endif

namespace atb_core {
namespace {

constexpr size_t kHugePage = size_t{2} << 20;

[[noreturn]] void out_of_memory(size_t bytes) { fail("out of memory: ", bytes, " bytes could not be allocated"); }

#if defined(__linux__)

constexpr bool has_own_pages(size_t bytes) { return bytes >= kHugePage; }

// Returns the bytes of whole pages, which have 4 to 64 KiB.
size_t whole_pages(size_t bytes) {
  static const auto kPage = static_cast<size_t>(sysconf(_SC_PAGESIZE));
  return align_up(bytes, kPage);
}

// Maps memory of its own, so that freeing it returns it to the system. Only whole huge pages are advised: one more for
// the tail of each weight would waste a megabyte on average.
std::byte* map(size_t bytes) {
  const size_t wanted = whole_pages(bytes), mapped = wanted + kHugePage;
  void* raw = mmap(nullptr, mapped, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (raw == MAP_FAILED) out_of_memory(bytes);
  const uintptr_t start = reinterpret_cast<uintptr_t>(raw), aligned = align_up(start, kHugePage);
  if (aligned > start) munmap(raw, aligned - start);
  if (const size_t tail = start + mapped - (aligned + wanted); tail > 0) {
    munmap(reinterpret_cast<void*>(aligned + wanted), tail);
  }
  // If the operating system does not grant huge pages, ordinary ones are used.
  static_cast<void>(madvise(reinterpret_cast<void*>(aligned), bytes / kHugePage * kHugePage, MADV_HUGEPAGE));
  return reinterpret_cast<std::byte*>(aligned);
}

const std::byte* map_file(int descriptor, size_t bytes) {
  void* data = mmap(nullptr, bytes, PROT_READ, MAP_SHARED, descriptor, 0);
  if (data == MAP_FAILED) fail("the file cannot be mapped: ", std::strerror(errno));
  return static_cast<const std::byte*>(data);
}

#else

constexpr bool has_own_pages(size_t) { return false; }
size_t whole_pages(size_t bytes) { return bytes; }
std::byte* map(size_t bytes) { out_of_memory(bytes); }
int munmap(void*, size_t) { return 0; }
const std::byte* map_file(int, size_t) { fail("files are not mapped on this system"); }

#endif

}  // namespace

FileMapping::FileMapping(int descriptor, size_t bytes) : data_(map_file(descriptor, bytes)), bytes_(bytes) {}

FileMapping::~FileMapping() { munmap(const_cast<std::byte*>(data_), bytes_); }

Buffer::Buffer(size_t bytes) : bytes_(bytes) {
  if (bytes == 0) return;
  if (bytes > SIZE_MAX / 2) out_of_memory(bytes);
  if (has_own_pages(bytes)) {
    data_ = map(bytes);
    return;
  }
  data_ = static_cast<std::byte*>(std::aligned_alloc(kAlignment, align_up(bytes)));
  if (data_ == nullptr) out_of_memory(bytes);
}

void Buffer::release() {
  if (data_ == nullptr || file_ != nullptr) return;
  if (has_own_pages(bytes_)) {
    munmap(data_, whole_pages(bytes_));
  } else {
    std::free(data_);
  }
}

}  // namespace atb_core
