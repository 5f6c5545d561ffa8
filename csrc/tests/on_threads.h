// SPDX-License-Identifier: Apache-2.0
// Runs a kernel on several threads, as the executor does.
#pragma once

#include <cstdlib>
#include <memory>
#include <optional>
#include <thread>
#include <vector>

#include "atb_core/error.h"
#include "cpu/flush_denormals.h"
#include "cpu/worker.h"

namespace atb_core::test {

// Memory of exactly this size, so that sanitizers see what is written behind it.
class Exact {
 public:
  explicit Exact(size_t bytes) : bytes_(bytes), data_(allocated(bytes), &std::free) {}
  std::byte* data() const { return data_.get(); }
  size_t bytes() const { return bytes_; }

 private:
  // aligned_alloc() wants a multiple of the alignment, behind which an overrun of less than a line would go unseen.
  static std::byte* allocated(size_t bytes) {
    void* data = nullptr;
    if (posix_memalign(&data, kAlignment, bytes) != 0) fail("out of memory: ", bytes, " bytes could not be allocated");
    return static_cast<std::byte*>(data);
  }

  size_t bytes_;
  std::unique_ptr<std::byte, decltype(&std::free)> data_;
};

// Calls fn(worker) on each of `threads` threads and returns the first error that one of them reports.
template <typename Fn>
std::optional<cpu::ErrorSlot::Report> on_threads(int threads, cpu::ScratchSize scratch, Fn fn) {
  cpu::Barrier barrier(threads);
  std::atomic<int64_t> ticket{0};
  cpu::ErrorSlot error;
  const Exact shared(scratch.shared);
  const auto work = [&](int index) {
    const cpu::FlushDenormals flush;
    const Exact own(scratch.per_thread);
    fn(cpu::Worker{index, threads, own.data(), scratch.per_thread, shared.data(), scratch.shared, &barrier, &ticket,
                   &error});
  };
  std::vector<std::thread> others;
  for (int i = 1; i < threads; ++i) others.emplace_back(work, i);
  work(0);
  for (std::thread& thread : others) thread.join();
  if (!error.failed()) return std::nullopt;
  return error.get();
}

}  // namespace atb_core::test
