// SPDX-License-Identifier: Apache-2.0
#include "cpu/engine/sliced_run.h"

#include <algorithm>
#include <mutex>
#include <utility>

#include "atb_core/error.h"
#include "cpu/engine/program.h"

namespace atb_core {

SlicedRun::SlicedRun(Program& program, std::unique_ptr<Plan> plan, const std::vector<void*>& externals, bool recorded)
    : program_(program),
      plan_(std::move(plan)),
      arena_(std::max(plan_->arena_bytes(), kAlignment)),
      execution_(*plan_, *program.runtime_, recorded),
      generation_(program.generation_) {
  plan_->attach(arena_.data(), externals);
}

SlicedRun::Status SlicedRun::advance(int64_t nanoseconds, const std::function<bool()>& interrupted) {
  const std::lock_guard turn(mutex_);
  if (plan_ == nullptr) fail("this run has ended");
  RunResult result;
  {
    auto lease = program_.runtime_->pool().lease();
    if (program_.store_->generation() != generation_) fail("weights were set while a run was paused");
    const Runtime::Workspace workspace = program_.runtime_->workspace(lease, 0, plan_->scratch());
    result = execution_.advance(lease, workspace, interrupted, nanoseconds);
  }
  switch (result.status) {
    case RunResult::Status::paused:
      return Status::paused;
    case RunResult::Status::interrupted:
      return Status::interrupted;
    case RunResult::Status::done:
      end();
      return Status::done;
    case RunResult::Status::failed:
      break;
  }
  const Plan::Step step = plan_->steps()[result.step];
  end();
  program_.fail_in(step, result.message);
}

void SlicedRun::end() {
  const std::lock_guard lock(program_.mutex_);
  if (program_.record_.on()) execution_.record(program_.record_);
  program_.keep(std::move(plan_), generation_);
}

}  // namespace atb_core
