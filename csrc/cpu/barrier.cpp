// SPDX-License-Identifier: Apache-2.0
#include "cpu/barrier.h"

#include <thread>

namespace atb_core::cpu {
namespace {

// About 5 us of pauses (a pause is 10 to 40 ns): the usual wait behind a well split node. More would be wasted
// where the peer cannot run because this very thread has its processor.
constexpr int kSpins = 200;
// Some 0.3 to 1 ms: yielding still notices the peer's arrival within a microsecond.
constexpr int kYields = 1000;

}  // namespace

void Barrier::arrive_and_wait() {
  if (count_ == 1) return;
  const uint32_t generation = generation_.load(std::memory_order_relaxed);
  if (arrived_.fetch_add(1, std::memory_order_acq_rel) + 1 == count_) {
    // Reset before opening: a thread that leaves may arrive at the next barrier at once.
    arrived_.store(0, std::memory_order_relaxed);
    generation_.store(generation + 1, std::memory_order_release);
    generation_.notify_all();
    return;
  }
  for (int i = 0; i < kSpins; ++i) {
    if (generation_.load(std::memory_order_acquire) != generation) return;
    spin_pause();
  }
  for (int i = 0; i < kYields; ++i) {
    if (generation_.load(std::memory_order_acquire) != generation) return;
    std::this_thread::yield();
  }
  while (generation_.load(std::memory_order_acquire) == generation) {
    generation_.wait(generation, std::memory_order_acquire);
  }
}

}  // namespace atb_core::cpu
