// SPDX-License-Identifier: Apache-2.0
#include "cpu/engine/read_stream.h"

#include <cstdint>
#include <cstring>

#include "cpu/engine/executor.h"
#include "cpu/engine/memory.h"

namespace atb_core {
namespace {

constexpr size_t kLine = 64, kWords = kLine / sizeof(uint64_t);
// Fetched ahead, at which distance memory is read fastest: two threads read 31 GB/s with 2.5 to 4 KiB, 29 with 2, 26 with 1,
// 24 with 8, and 22 without (Sapphire Rapids).
constexpr size_t kAhead = 3 << 10;

// Reads `count` bytes, a multiple of a line. The result has to be used, or the compiler leaves the loads out.
uint64_t read(const std::byte* data, size_t count) {
  uint64_t sums[kWords] = {};
  for (size_t i = 0; i < count; i += kLine) {
    uint64_t words[kWords];
    __builtin_prefetch(data + i + kAhead, 0, 2);
    std::memcpy(words, data + i, kLine);
    for (size_t w = 0; w < kWords; ++w) sums[w] ^= words[w];
  }
  uint64_t all = 0;
  for (uint64_t word : sums) all ^= word;
  return all;
}

}  // namespace

std::vector<double> read_stream(Runtime& runtime, size_t bytes, int repeats) {
  const auto threads = static_cast<size_t>(runtime.num_threads());
  const size_t part = bytes / threads / kLine * kLine;
  const Buffer buffer(part * threads);
  std::vector<double> seconds;
  auto lease = runtime.pool().lease();
  // Each thread writes what it reads later, so that its pages are near to it.
  lease.run([&](int index, cpu::Barrier&) {
    std::memset(buffer.data() + static_cast<size_t>(index) * part, index + 1, part);
  });
  for (int i = 0; i < repeats; ++i) {
    const int64_t begin = steady_now();
    lease.run([&](int index, cpu::Barrier&) {
      const auto t = static_cast<size_t>(index);
      volatile uint64_t result = read(buffer.data() + t * part, part);
      (void)result;
    });
    seconds.push_back(static_cast<double>(steady_now() - begin) * 1e-9);
  }
  return seconds;
}

}  // namespace atb_core
