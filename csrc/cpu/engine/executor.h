// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <string>

#include "cpu/engine/plan.h"
#include "cpu/engine/runtime.h"
#include "graph/run_times.h"

namespace atb_core {

struct RunOptions {
  int threads = 1;
  // Called by the calling thread between phases, at most every few milliseconds; true ends the run.
  const std::function<bool()>* interrupted = nullptr;
  // If not empty, receives the times of all steps of the first thread, then of the second, and so on. The end of a part
  // is before the barrier: what is left until the first thread begins the next step, it waits for the others.
  std::span<StepTime> times;
  size_t first_phase = 0;
  // The run pauses before a phase that, as long as the longest so far, would end after so many nanoseconds; before none
  // that is the first of a call.
  int64_t pause_after = INT64_MAX;
  int64_t longest_phase = 0;  // in nanoseconds, of the calls before
};

struct RunResult {
  enum class Status { done, paused, interrupted, failed } status = Status::done;
  size_t step = 0;   // where it failed
  size_t phase = 0;  // the next one, if paused or interrupted
  int64_t longest_phase = 0;
  std::string message = {};  // why, if failed
  int64_t waited = 0;        // nanoseconds, of all threads, see ThreadPool::Lease::run
};

// Runs the phases of an attached plan from `first_phase` on, one barrier after each. Allocates nothing.
RunResult execute(const Plan& plan, cpu::ThreadPool::Lease& lease, const Runtime::Workspace& workspace,
                  const RunOptions& options);

}  // namespace atb_core
