// SPDX-License-Identifier: Apache-2.0
#include "cpu/engine/execution.h"

#include <utility>

namespace atb_core {

Execution::Execution(Plan& plan, const Runtime& runtime, bool recorded)
    : plan_(plan),
      times_(recorded ? plan.steps().size() * static_cast<size_t>(runtime.num_threads()) : 0),
      begin_(steady_now()),
      threads_(plan.thread_choice().next()) {}

RunResult Execution::advance(cpu::ThreadPool::Lease& lease, const Runtime::Workspace& workspace,
                             const std::function<bool()>& interrupted, int64_t nanoseconds) {
  const RunOptions options{.threads = threads_,
                           .interrupted = interrupted ? &interrupted : nullptr,
                           .times = times_,
                           .first_phase = phase_,
                           .pause_after = nanoseconds,
                           .longest_phase = longest_phase_};
  const int64_t start = steady_now();
  RunResult result = execute(plan_, lease, workspace, options);
  spent_ += steady_now() - start;
  waited_ += result.waited;
  phase_ = result.phase;
  longest_phase_ = result.longest_phase;
  if (result.status == RunResult::Status::done) plan_.thread_choice().note(spent_, waited_);
  return result;
}

void Execution::record(RunRecord& record) {
  if (times_.empty()) return;
  std::vector<int32_t> nodes;
  nodes.reserve(plan_.steps().size());
  for (const Plan::Step& step : plan_.steps()) nodes.push_back(step.node);
  record.add({begin_, steady_now(), std::move(nodes), std::move(times_)});
}

}  // namespace atb_core
