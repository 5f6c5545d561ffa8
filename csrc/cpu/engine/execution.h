// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <functional>
#include <vector>

#include "cpu/engine/executor.h"

namespace atb_core {

// One run of an attached plan: all at once, or in slices between which other plans run.
class Execution {
 public:
  // `recorded`: keeps the times of all steps.
  Execution(Plan& plan, const Runtime& runtime, bool recorded);

  // Goes on for about so many nanoseconds, see RunOptions::pause_after.
  RunResult advance(cpu::ThreadPool::Lease& lease, const Runtime::Workspace& workspace,
                    const std::function<bool()>& interrupted, int64_t nanoseconds = INT64_MAX);

  // Adds the times to `record` if they are kept; called once, after the last slice.
  void record(RunRecord& record);

 private:
  Plan& plan_;
  std::vector<StepTime> times_;
  const int64_t begin_;
  const int threads_;
  size_t phase_ = 0;
  int64_t spent_ = 0, waited_ = 0, longest_phase_ = 0;  // nanoseconds
};

}  // namespace atb_core
