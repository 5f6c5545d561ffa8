// SPDX-License-Identifier: Apache-2.0
#include "cpu/engine/memory.h"

#include <algorithm>
#include <cerrno>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <utility>

#include "atb_core/error.h"
#include "atb_core/types.h"

#if defined(__linux__)
#include <sys/mman.h>
#include <unistd.h>
#endif

namespace atb_core {
namespace {

// Below this, memory is the C library's.
constexpr size_t kOwnPages = size_t{128} << 10;

[[noreturn]] void out_of_memory(size_t bytes) { fail("out of memory: ", bytes, " bytes could not be allocated"); }

#if defined(__linux__)

constexpr bool has_own_pages(size_t bytes) { return bytes >= kOwnPages; }

// Returns the bytes of whole pages, which have 4 to 64 KiB.
size_t whole_pages(size_t bytes) {
  static const auto kPage = static_cast<size_t>(sysconf(_SC_PAGESIZE));
  return align_up(bytes, kPage);
}

void advise_huge_pages(uintptr_t begin, uintptr_t end) {
  static_cast<void>(madvise(reinterpret_cast<void*>(begin), end - begin, MADV_HUGEPAGE));
}

// Address space in which one thread's buffers follow each other, so that the end of one and the begin of the next share
// a huge page. With a mapping for each, a tenth of a model's weights lay in ordinary pages, and was read at 20 GB/s where
// the rest was at 33 (Zen 4). Unused space costs no memory; who owns a buffer unmaps it.
class Region {
 public:
  Region() = default;
  Region(const Region&) = delete;
  Region& operator=(const Region&) = delete;
  ~Region() { unmap_rest(); }

  // Returns whole pages, null if there is no memory.
  std::byte* take(size_t bytes) {
    if (bytes > static_cast<size_t>(end_ - next_) && !reserve(std::max(bytes, kBytes)) && !reserve(bytes)) {
      return nullptr;
    }
    return std::exchange(next_, next_ + bytes);
  }

 private:
  static constexpr size_t kBytes = size_t{256} << 20;

  void unmap_rest() {
    if (next_ != end_) munmap(next_, static_cast<size_t>(end_ - next_));
    next_ = end_ = nullptr;
  }

  bool reserve(size_t bytes) {
    const size_t mapped = bytes + kHugePage;
    void* raw = mmap(nullptr, mapped, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (raw == MAP_FAILED) return false;
    unmap_rest();
    auto* start = static_cast<std::byte*>(raw);
    next_ = reinterpret_cast<std::byte*>(align_up(reinterpret_cast<uintptr_t>(raw), kHugePage));
    end_ = next_ + bytes;
    if (next_ > start) munmap(start, static_cast<size_t>(next_ - start));
    if (start + mapped > end_) munmap(end_, static_cast<size_t>(start + mapped - end_));
    // If the operating system does not grant huge pages, ordinary ones are used.
    advise_huge_pages(reinterpret_cast<uintptr_t>(next_),
                      reinterpret_cast<uintptr_t>(next_) + bytes / kHugePage * kHugePage);
    return true;
  }

  std::byte* next_ = nullptr;
  std::byte* end_ = nullptr;
};

// Maps memory whose pages return to the system when they are freed.
std::byte* map(size_t bytes) {
  static thread_local Region region;
  std::byte* data = region.take(whole_pages(bytes));
  if (data == nullptr) out_of_memory(bytes);
  return data;
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
void advise_huge_pages(uintptr_t, uintptr_t) {}
const std::byte* map_file(int, size_t) { fail("files are not mapped on this system"); }

#endif

}  // namespace

void ask_for_huge_pages(const std::byte* begin, const std::byte* end) {
  const uintptr_t first = reinterpret_cast<uintptr_t>(begin) / kHugePage * kHugePage;
  advise_huge_pages(first, align_up(reinterpret_cast<uintptr_t>(end), kHugePage));
}

bool read_file([[maybe_unused]] int descriptor, [[maybe_unused]] int64_t offset, [[maybe_unused]] std::byte* out,
               size_t bytes) {
#if defined(__linux__)
  while (bytes > 0) {
    const ssize_t count = pread(descriptor, out, bytes, offset);
    if (count < 0 && errno == EINTR) continue;
    if (count <= 0) return false;
    out += count;
    offset += count;
    bytes -= static_cast<size_t>(count);
  }
#endif
  return bytes == 0;
}

FileMapping::FileMapping(int descriptor, size_t bytes) : data_(map_file(descriptor, bytes)), bytes_(bytes) {}

FileMapping::~FileMapping() { munmap(const_cast<std::byte*>(data_), bytes_); }

Buffer::Buffer(size_t bytes) : bytes_(bytes) {
  if (bytes == 0) return;
  if (bytes > SIZE_MAX / 2) out_of_memory(bytes);
  if (has_own_pages(bytes)) {
    data_ = map(bytes);
    return;
  }
  // aligned_alloc() wants a multiple of the alignment: sanitizers would not see an overrun of less than a line.
  void* data = nullptr;
  if (posix_memalign(&data, kAlignment, bytes) != 0) out_of_memory(bytes);
  data_ = static_cast<std::byte*>(data);
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
