// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <vector>

#include "atb_core/fork_safe_mutex.h"
#include "cpu/engine/execution.h"
#include "cpu/engine/memory.h"

namespace atb_core {

class Program;

// A run of a program in slices of time, between which this and other programs may run: it has the plan and the memory
// of intermediate results for itself. One that is given up leaves its outputs, and what it writes in place, undefined.
class SlicedRun {
 public:
  // `externals`: the memory of inputs and outputs, which the caller keeps as it is until the run has ended; integers
  // are copied here.
  SlicedRun(Program& program, std::unique_ptr<Plan> plan, const std::vector<void*>& externals, bool recorded);
  SlicedRun(const SlicedRun&) = delete;
  SlicedRun& operator=(const SlicedRun&) = delete;

  enum class Status { done, paused, interrupted };
  // Goes on for about `nanoseconds`, for one node at least. `interrupted` is called regularly; if it returns true, the
  // slice ends. Throws Error if the run has ended, if data are wrong, or if weights were set since it began. Threads that
  // call it at once take turns.
  Status advance(int64_t nanoseconds, const std::function<bool()>& interrupted = {});

 private:
  // Gives the plan back to the program.
  void end();

  ForkSafeMutex mutex_;  // taken before the pool's lease and the program's mutex
  Program& program_;
  std::unique_ptr<Plan> plan_;
  const Buffer arena_;
  Execution execution_;
  const uint64_t generation_;  // of the weights
};

}  // namespace atb_core
