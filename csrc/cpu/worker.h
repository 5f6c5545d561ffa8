// SPDX-License-Identifier: Apache-2.0
// What a kernel sees of the thread that runs it.
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

// Where a kernel leaves the first error it meets (an index out of range, ...). The executor looks at it after each
// node and turns it into an exception.
class ErrorSlot {
 public:
  struct Report {
    const char* what;
    int64_t position, value, limit;
  };

  // An error in the data; `what` must be a string literal.
  void report(const char* what, int64_t position, int64_t value, int64_t limit) {
    if (taken_.exchange(true, std::memory_order_acq_rel)) return;
    report_ = {what, position, value, limit};
  }
  // An error in the kernel's own words, of which the slot keeps as much as it has room for.
  void report(std::string_view text);
  // Only valid after a barrier that follows the report.
  bool failed() const { return taken_.load(std::memory_order_acquire); }
  const Report& get() const { return report_; }
  // What was reported, for people.
  std::string message() const;
  void clear() { taken_.store(false, std::memory_order_release); }

 private:
  std::atomic<bool> taken_{false};
  Report report_{};
  char text_[512];  // not set: a run makes slots, but seldom needs them
};

// A kernel is called on every thread of the pool with the same arguments and its own Worker. It splits
// its work over outputs, never over a sum, so that results depend neither on `count` nor on who did what.
struct Worker {
  int index = 0;
  int count = 1;
  std::byte* scratch = nullptr;  // this thread's own, 64-byte aligned
  size_t scratch_bytes = 0;
  std::byte* shared = nullptr;  // the node's own, the same memory on all threads, 64-byte aligned
  size_t shared_bytes = 0;
  Barrier* barrier = nullptr;
  std::atomic<int64_t>* ticket = nullptr;  // zero when the node starts
  ErrorSlot* error = nullptr;

  // A barrier between all threads. Every thread must reach it the same number of times.
  void sync() const {
    if (count > 1) barrier->arrive_and_wait();
  }

  // Takes the next `step` units of work from the common counter; returns the first of them.
  int64_t take(int64_t step = 1) const { return ticket->fetch_add(step, std::memory_order_relaxed); }

  // This thread's share [begin, end) of n units, cut at multiples of `grain` (except at n).
  std::pair<int64_t, int64_t> share(int64_t n, int64_t grain = 1) const {
    const int64_t grains = (n + grain - 1) / grain;
    const int64_t begin = grains * index / count * grain;
    const int64_t end = grains * (index + 1) / count * grain;
    return {std::min(begin, n), std::min(end, n)};
  }
};

}  // namespace atb_core::cpu
