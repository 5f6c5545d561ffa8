// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <chrono>
#include <cstdint>
#include <deque>
#include <iterator>
#include <vector>

namespace atb_core {

// When a thread began and ended its part of a step, in nanoseconds of the steady clock. Zeros: it had no part.
struct StepTime {
  int64_t begin = 0, end = 0;
};

// Returns the steady clock's nanoseconds.
inline int64_t steady_now() {
  const auto now = std::chrono::steady_clock::now().time_since_epoch();
  return std::chrono::duration_cast<std::chrono::nanoseconds>(now).count();
}

// When the steps of one run ran. `nodes` has the node of each step, -1 for the copy into an output; `times` those of
// each thread, one thread after another. `begin` and `end` enclose the choice of a plan and the binding of memory.
struct RunTimes {
  int64_t begin, end;
  std::vector<int32_t> nodes;
  std::vector<StepTime> times;
};

// Keeps the times of the latest runs while it is on.
class RunRecord {
 public:
  static constexpr size_t kMost = 256;

  bool on() const { return on_; }
  // Drops what was kept.
  void set(bool on) {
    on_ = on;
    runs_.clear();
  }
  void add(RunTimes run) {
    if (runs_.size() == kMost) runs_.pop_front();
    runs_.push_back(std::move(run));
  }
  // Returns and forgets the kept runs.
  std::vector<RunTimes> take() {
    std::vector<RunTimes> result(std::make_move_iterator(runs_.begin()), std::make_move_iterator(runs_.end()));
    runs_.clear();
    return result;
  }

 private:
  bool on_ = false;
  std::deque<RunTimes> runs_;
};

}  // namespace atb_core
