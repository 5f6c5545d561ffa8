// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <atomic>
#include <cstdint>

#include "atb_core/types.h"

namespace atb_core::cpu {

// Tells the processor that this is a spin loop, so that the sibling hyper-thread gets the execution ports.
inline void spin_pause() {
#if defined(__x86_64__) || defined(__i386__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("yield" ::: "memory");
#endif
}

// A barrier for a number of threads, made for a few hundred crossings per decode step. A waiting thread spins for
// some microseconds, then yields its processor, then sleeps: threads with a processor each never enter the operating
// system's kernel, and if one is descheduled the others do not waste the time it needs.
class Barrier {
 public:
  explicit Barrier(int count) : count_(count) {}

  // Changes the number while no thread waits.
  void set_count(int count) { count_ = count; }

  // Waits for all threads. Everything written by any thread before arriving is visible to all threads after they leave.
  void arrive_and_wait();

  // Returns the nanoseconds for which all threads together waited longer than they spin, since the last call.
  int64_t take_waited() { return waited_.exchange(0, std::memory_order_relaxed); }

 private:
  bool spin(uint32_t generation) const;
  void wait(uint32_t generation) const;

  int count_;
  std::atomic<int64_t> waited_{0};
  alignas(kAlignment) std::atomic<int32_t> arrived_{0};
  alignas(kAlignment) std::atomic<uint32_t> generation_{0};
};

}  // namespace atb_core::cpu
