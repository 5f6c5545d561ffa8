// SPDX-License-Identifier: Apache-2.0
#include "cpu/barrier.h"

#include <chrono>
#include <thread>

namespace atb_core::cpu {
namespace {

// About 5 us (a pause takes 10 to 40 ns): the usual wait after a well divided node. A longer spin would be wasted where
// the other thread waits for this thread's processor.
constexpr int kSpins = 200;
// About 0.3 to 1 ms: a yielding thread notices the last arrival within a microsecond.
constexpr int kYields = 1000;

}  // namespace

void Barrier::arrive_and_wait() {
  const int count = count_;  // which may change as soon as all have arrived
  if (count == 1) return;
  const uint32_t generation = generation_.load(std::memory_order_relaxed);
  if (arrived_.fetch_add(1, std::memory_order_acq_rel) + 1 == count) {
    // Resets before opening: a thread that leaves may arrive at the next barrier at once.
    arrived_.store(0, std::memory_order_relaxed);
    generation_.store(generation + 1, std::memory_order_release);
    generation_.notify_all();
    return;
  }
  if (spin(generation)) return;
  const auto start = std::chrono::steady_clock::now();
  wait(generation);
  const std::chrono::nanoseconds waited = std::chrono::steady_clock::now() - start;
  waited_.fetch_add(waited.count(), std::memory_order_relaxed);
}

// Returns true if all threads arrived meanwhile.
bool Barrier::spin(uint32_t generation) const {
  for (int i = 0; i < kSpins; ++i) {
    if (generation_.load(std::memory_order_acquire) != generation) return true;
    spin_pause();
  }
  return false;
}

void Barrier::wait(uint32_t generation) const {
  for (int i = 0; i < kYields; ++i) {
    if (generation_.load(std::memory_order_acquire) != generation) return;
    std::this_thread::yield();
  }
  while (generation_.load(std::memory_order_acquire) == generation) {
    generation_.wait(generation, std::memory_order_acquire);
  }
}

}  // namespace atb_core::cpu
