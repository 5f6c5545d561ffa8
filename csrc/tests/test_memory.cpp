// SPDX-License-Identifier: Apache-2.0
#include "cpu/engine/memory.h"

#include <cstdint>
#include <cstring>
#include <thread>
#include <utility>
#include <vector>

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#endif

#include "atb_core/types.h"
#include "check.h"
#include "on_threads.h"

using namespace atb_core;

namespace {

constexpr size_t kMiB = size_t{1} << 20;

bool holds(const Buffer& buffer, int value) {
  for (size_t i = 0; i < buffer.bytes(); ++i) {
    if (buffer.data()[i] != static_cast<std::byte>(value)) return false;
  }
  return true;
}

Buffer filled(size_t bytes, int value) {
  Buffer buffer(bytes);
  std::memset(buffer.data(), value, bytes);
  return buffer;
}

}  // namespace

TEST(buffers_are_aligned_and_their_own) {
  std::vector<Buffer> buffers;
  const size_t sizes[] = {1, 63, 4096, 128 << 10, (128 << 10) - 1, 3 * kMiB + 5, 300 * kMiB, 2 * kMiB, 700 << 10};
  for (const size_t bytes : sizes) buffers.push_back(filled(bytes, static_cast<int>(buffers.size())));
  const Buffer moved = std::exchange(buffers.back(), Buffer());
  CHECK(buffers.back().bytes() == 0 && holds(moved, static_cast<int>(buffers.size()) - 1));
  buffers.pop_back();
  for (size_t i = 0; i < buffers.size(); ++i) {
    CHECK(buffers[i].bytes() == sizes[i]);
    CHECK(reinterpret_cast<uintptr_t>(buffers[i].data()) % kAlignment == 0);
    CHECK(holds(buffers[i], static_cast<int>(i)));
  }
}

#if defined(__SANITIZE_ADDRESS__)
TEST(the_first_byte_behind_a_small_buffer_is_guarded) {
  for (const size_t bytes : {1, 63, 65, (128 << 10) - 1}) {
    const Buffer buffer(bytes);
    const test::Exact exact(bytes);
    for (const std::byte* data : {buffer.data(), exact.data()})
      CHECK(!__asan_address_is_poisoned(data + bytes - 1) && __asan_address_is_poisoned(data + bytes));
  }
}
#endif

TEST(a_freed_buffer_leaves_its_neighbours_alone) {
  std::vector<Buffer> buffers;
  for (int i = 0; i < 12; ++i) buffers.push_back(filled(700 << 10, i));
  for (size_t i = 0; i < buffers.size(); i += 2) buffers[i] = Buffer();
  for (size_t i = 1; i < buffers.size(); i += 2) CHECK(holds(buffers[i], static_cast<int>(i)));
  for (size_t i = 0; i < buffers.size(); i += 2) buffers[i] = filled(900 << 10, 77);
  for (size_t i = 1; i < buffers.size(); i += 2) CHECK(holds(buffers[i], static_cast<int>(i)));
}

TEST(a_buffer_outlives_the_thread_that_made_it) {
  Buffer buffer;
  std::thread([&] { buffer = filled(5 * kMiB, 9); }).join();
  const Buffer other = filled(5 * kMiB, 8);
  CHECK(holds(buffer, 9));
  CHECK(holds(other, 8));
}

TEST(buffers_can_be_made_and_freed_without_end) {
  // 25 GiB in all, more than a region of address space has.
  for (int i = 0; i < 100; ++i) {
    const Buffer buffer(256 * kMiB + 4096);
    buffer.data()[0] = buffer.data()[buffer.bytes() - 1] = std::byte{1};
    CHECK(buffer.data()[0] == std::byte{1});
  }
}

TEST(too_much_memory_is_an_error) {
  CHECK_THROWS(Buffer(SIZE_MAX), "out of memory");
  CHECK_THROWS(Buffer(size_t{1} << 50), "out of memory");
  CHECK(holds(filled(kMiB, 3), 3));
}

TEST_MAIN()
