// SPDX-License-Identifier: Apache-2.0
// The kernels' view of the thread that runs them.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <utility>

#include "cpu/barrier.h"

namespace atb_core::cpu {

// Holds the first error that a kernel reports (an index out of range, ...). The executor checks it after each node and
// throws an exception.
class ErrorSlot {
 public:
  struct Report {
    const char* what;
    int64_t position, value, limit;
  };

  // Reports an error in the data; `what` must be a string literal.
  void report(const char* what, int64_t position, int64_t value, int64_t limit) {
    if (taken_.exchange(true, std::memory_order_acq_rel)) return;
    report_ = {what, position, value, limit};
  }
  // Reports an error as text, of which the slot keeps as much as fits.
  void report(std::string_view text);
  // Returns true if there is a report. Valid only after a barrier that follows the report.
  bool failed() const { return taken_.load(std::memory_order_acquire); }
  const Report& get() const { return report_; }
  // Returns the report as a message.
  std::string message() const;
  void clear() { taken_.store(false, std::memory_order_release); }

 private:
  std::atomic<bool> taken_{false};
  Report report_{};
  char text_[512];  // not initialized: every run makes slots and few need them
};

// Bytes a kernel wants in Worker::shared (the node) and Worker::scratch (each thread).
struct ScratchSize {
  size_t shared = 0;
  size_t per_thread = 0;
};

// A kernel is called on every thread of the pool with the same arguments and its own Worker. It divides its work over
// outputs, never over a sum, so that results depend neither on `count` nor on the order of the threads.
struct Worker {
  int index = 0;
  int count = 1;
  std::byte* scratch = nullptr;  // of this thread, 64-byte aligned
  size_t scratch_bytes = 0;
  std::byte* shared = nullptr;  // of the node: the same memory on all threads, 64-byte aligned
  size_t shared_bytes = 0;
  Barrier* barrier = nullptr;
  std::atomic<int64_t>* ticket = nullptr;  // zero when the node starts
  ErrorSlot* error = nullptr;

  // Waits for all threads. Every thread must call it the same number of times.
  void sync() const {
    if (count > 1) barrier->arrive_and_wait();
  }

  // Takes the next `step` units of work from the common counter and returns the first of them.
  int64_t take(int64_t step = 1) const { return ticket->fetch_add(step, std::memory_order_relaxed); }

  // Returns this thread's share [begin, end) of n units, cut at multiples of `grain` (except at n).
  std::pair<int64_t, int64_t> share(int64_t n, int64_t grain = 1) const {
    const int64_t grains = (n + grain - 1) / grain;
    const int64_t begin = grains * index / count * grain;
    const int64_t end = grains * (index + 1) / count * grain;
    return {std::min(begin, n), std::min(end, n)};
  }
};

}  // namespace atb_core::cpu
