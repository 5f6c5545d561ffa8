// SPDX-License-Identifier: Apache-2.0
#include "cpu/engine/executor.h"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <utility>

namespace atb_core {
namespace {

using Clock = std::chrono::steady_clock;

// State of one run, shared by the threads. Tickets and error slots exist twice, for even and odd phases: a thread may
// still read those of the previous phase while a faster one already uses the next.
struct Shared {
  struct alignas(kAlignment) Pair {
    std::atomic<int64_t> ticket{0};
    cpu::ErrorSlot error;
  };
  Pair pairs[2];
  // The phase after which all threads leave. Thread 0 sets it before a barrier, so all read the same value after it.
  alignas(kAlignment) std::atomic<int64_t> stop_after{INT64_MAX};
};

// Asks the caller between phases if the run has to end.
class Poll {
 public:
  explicit Poll(const RunOptions& options) : options_(options), last_(Clock::now()) {}

  // Returns true if the run has to end.
  bool interrupted() {
    constexpr auto kInterval = std::chrono::milliseconds(20);
    if (options_.interrupted == nullptr) return false;
    const auto now = Clock::now();
    if (now - last_ < kInterval) return false;
    last_ = now;
    return (*options_.interrupted)();
  }

 private:
  const RunOptions& options_;
  Clock::time_point last_;
};

// Tells between phases if the run has to pause.
class Slice {
 public:
  explicit Slice(const RunOptions& options)
      : end_(options.pause_after == INT64_MAX ? INT64_MAX : steady_now() + options.pause_after),
        last_(end_ == INT64_MAX ? 0 : steady_now()),
        longest_(options.longest_phase) {}

  // Returns true if the next phase would probably end too late.
  bool is_over() {
    if (end_ == INT64_MAX) return false;
    const int64_t now = steady_now();
    longest_ = std::max(longest_, now - std::exchange(last_, now));
    return now > end_ - longest_;
  }

  int64_t longest_phase() const { return longest_; }

 private:
  const int64_t end_;
  int64_t last_, longest_;
};

// Runs a step on the calling thread; notes its times if the run is recorded.
void run_step(const Plan& plan, size_t step, const cpu::Worker& worker, std::span<StepTime> times) {
  if (times.empty()) return plan.steps()[step].run(worker);
  StepTime& time = times[static_cast<size_t>(worker.index) * plan.steps().size() + step];
  time.begin = steady_now();
  plan.steps()[step].run(worker);
  time.end = steady_now();
}

// Runs a phase of small steps on the calling thread alone; returns the step that it reached.
size_t run_small(const Plan& plan, const Plan::Phase& phase, cpu::Worker worker, std::span<StepTime> times) {
  worker.count = 1;
  for (size_t i = phase.begin; i < phase.end; ++i) {
    worker.ticket->store(0, std::memory_order_relaxed);
    run_step(plan, i, worker, times);
    if (worker.error->failed()) return i;
  }
  return phase.end - 1;
}

}  // namespace

RunResult execute(const Plan& plan, cpu::ThreadPool::Lease& lease, const Runtime::Workspace& workspace,
                  const RunOptions& options) {
  Shared shared;
  Poll poll(options);
  Slice slice(options);
  RunResult result;
  const size_t num_phases = plan.phases().size();
  const auto work = [&](int index, int count, cpu::Barrier* barrier) {
    cpu::Worker worker{.index = index,
                       .count = count,
                       .scratch = workspace.scratch + static_cast<size_t>(index) * workspace.scratch_stride,
                       .scratch_bytes = plan.scratch().per_thread,
                       .shared = workspace.shared,
                       .shared_bytes = plan.scratch().shared,
                       .barrier = barrier};
    for (size_t p = options.first_phase; p < num_phases; ++p) {
      const Plan::Phase& phase = plan.phases()[p];
      Shared::Pair& own = shared.pairs[p & 1];
      worker.ticket = &own.ticket;
      worker.error = &own.error;
      size_t step = phase.begin;
      if (!phase.small) {
        run_step(plan, step, worker, options.times);
      } else if (index == 0) {
        step = run_small(plan, phase, worker, options.times);
      }
      if (index == 0) {
        shared.pairs[(p + 1) & 1].ticket.store(0, std::memory_order_relaxed);
        const bool interrupted = poll.interrupted();
        if (interrupted || (slice.is_over() && p + 1 < num_phases)) {
          result.status = interrupted ? RunResult::Status::interrupted : RunResult::Status::paused;
          shared.stop_after.store(static_cast<int64_t>(p), std::memory_order_relaxed);
        }
      }
      worker.sync();
      const bool failed = own.error.failed();
      const bool stopped = shared.stop_after.load(std::memory_order_relaxed) <= static_cast<int64_t>(p);
      if (!failed && !stopped) continue;
      if (index == 0) {
        result.step = step;
        result.phase = p + 1;
        if (failed) {
          result.status = RunResult::Status::failed;
          result.message = own.error.message();
        }
      }
      return;
    }
  };
  // A plan with small nodes only does not wake the other threads.
  const bool alone = std::all_of(plan.phases().begin(), plan.phases().end(), [](const auto& p) { return p.small; });
  const int count = alone ? 1 : options.threads;
  result.waited = lease.run(count, [&](int index, cpu::Barrier& barrier) { work(index, count, &barrier); });
  result.longest_phase = slice.longest_phase();
  return result;
}

}  // namespace atb_core
