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
};

struct RunResult {
  enum class Status { done, interrupted, failed } status = Status::done;
  size_t step = 0;           // where it ended, if not done
  std::string message = {};  // why, if failed
  int64_t waited = 0;        // nanoseconds, of all threads, see ThreadPool::Lease::run
};

// Runs the phases of an attached plan, one barrier after each. Allocates nothing.
RunResult execute(const Plan& plan, cpu::ThreadPool::Lease& lease, const Runtime::Workspace& workspace,
                  const RunOptions& options);

}  // namespace atb_core
