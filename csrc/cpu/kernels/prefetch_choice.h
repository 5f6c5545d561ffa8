// SPDX-License-Identifier: Apache-2.0
// The distance at which weights that are used once are fetched, chosen by measuring while they are. It affects speed only.
#pragma once

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>

namespace atb_core::cpu {

// Tries distances in turns, in tasks that come anyway, and keeps the one with the highest median of bytes a second. The
// first one is kept unless another is clearly faster. May be used by many threads.
class PrefetchChoice {
 public:
  // In bytes; 0: none. With 1, 2, 3, 4, 6 and 8 KiB, a decode step of 0.5 billion weights took 0.93, 0.91, 0.92, 0.96,
  // 0.96 and 0.95 of its time with 4 KiB and short tasks in bf16, and 1.10, 1.01, 0.91, 0.93, 0.96 and 0.94 in int4
  // (Sapphire Rapids, two threads). On Zen 4 some streams were read faster without.
  static constexpr std::array<size_t, 6> kDistances = {3 << 10, 0, 1 << 10, 2 << 10, 4 << 10, 6 << 10};
  static constexpr uint32_t kSamples = 32;          // of each distance
  static constexpr size_t kLeastBytes = 256 << 10;  // of a task: a shorter one is over before memory is at its speed
  static constexpr double kClearly = 1.05;

  // `fixed`: the distance, without any trial; less than 0: to be measured.
  explicit PrefetchChoice(int64_t fixed = -1);

  bool is_made() const { return made_.load(std::memory_order_relaxed); }
  // The distance to use, until the choice is made the first one.
  size_t ahead() const { return ahead_.load(std::memory_order_relaxed); }
  // Returns the index of a distance to try.
  uint32_t next();
  // Takes what a task with the distance of this index read, and in what time.
  void note(uint32_t index, size_t bytes, int64_t nanoseconds);

 private:
  void choose();

  std::atomic<size_t> ahead_;
  std::atomic<bool> made_;
  std::atomic<uint32_t> turn_{0}, noted_{0};
  std::array<std::atomic<uint32_t>, kDistances.size()> counts_{};
  std::array<std::array<std::atomic<float>, kSamples>, kDistances.size()> rates_{};
};

// Returns the choice of this process: of ATB_PREFETCH_AHEAD if it is set, else a measured one.
PrefetchChoice& prefetch_choice();

// A task that reads weights once, from its construction to its end.
class PrefetchTrial {
 public:
  PrefetchTrial(PrefetchChoice& choice, size_t bytes);
  PrefetchTrial(const PrefetchTrial&) = delete;
  PrefetchTrial& operator=(const PrefetchTrial&) = delete;
  ~PrefetchTrial();

  size_t ahead() const { return ahead_; }

 private:
  PrefetchChoice& choice_;
  size_t bytes_;
  size_t ahead_;
  uint32_t index_ = 0;
  int64_t begin_ = 0;  // 0: not measured
};

}  // namespace atb_core::cpu
