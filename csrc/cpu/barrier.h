// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <atomic>
#include <cstdint>

#include "atb_core/types.h"

namespace atb_core::cpu {

// Tells the processor that this is a spin loop (and gives the sibling hyper-thread the execution ports).
inline void spin_pause() {
#if defined(__x86_64__) || defined(__i386__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("yield" ::: "memory");
#endif
}

// A barrier for a fixed number of threads, made for a few hundred crossings per decoding step.
// A thread that arrives spins for some microseconds, then yields its processor, then sleeps: when
// the threads have a processor each, nobody enters the kernel; when one of them has been
// descheduled, the others do not burn the time it needs.
class Barrier {
 public:
  explicit Barrier(int count) : count_(count) {}

  // Everything written by any thread before arriving is visible to all threads after they leave.
  void arrive_and_wait();

 private:
  const int count_;
  alignas(kAlignment) std::atomic<int32_t> arrived_{0};
  alignas(kAlignment) std::atomic<uint32_t> generation_{0};
};

}  // namespace atb_core::cpu
