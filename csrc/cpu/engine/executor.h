// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <functional>
#include <span>
#include <string>

#include "cpu/engine/plan.h"
#include "cpu/engine/runtime.h"

namespace atb_core {

struct RunOptions {
  // Called by the calling thread between phases, at most every few milliseconds; true ends the run.
  const std::function<bool()>* interrupted = nullptr;
  // If not empty, the seconds of each step are added here.
  std::span<double> seconds;
};

struct RunResult {
  enum class Status { done, interrupted, failed } status = Status::done;
  size_t step = 0;           // where it ended, if not done
  std::string message = {};  // why, if failed
};

// Runs the phases of an attached plan, one barrier after each. Allocates nothing.
RunResult execute(const Plan& plan, Runtime& runtime, cpu::ThreadPool::Lease& lease,
                  const Runtime::Workspace& workspace, const RunOptions& options);

}  // namespace atb_core
