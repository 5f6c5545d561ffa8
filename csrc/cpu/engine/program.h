// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <atomic>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "atb_core/fork_safe_mutex.h"
#include "cpu/engine/plan.h"
#include "cpu/engine/runtime.h"
#include "cpu/engine/sliced_run.h"
#include "cpu/engine/weight_store.h"
#include "graph/arguments.h"
#include "graph/graph.h"
#include "graph/run_times.h"

namespace atb_core {

// A graph that runs. Real tensors are bound to its inputs and outputs; their shapes select a plan, which is built when
// first needed and kept.
class Program {
 public:
  // The number of plans kept; the least recently used one is dropped.
  static constexpr size_t kMaxPlans = 64;

  // Throws Error if the graph is invalid or disagrees with the store about a weight.
  Program(std::shared_ptr<Runtime> runtime, std::shared_ptr<WeightStore> store, GraphSpec spec);

  const Graph& graph() const { return graph_; }

  // Returns the tensor's number. Throws Error if no input or output has the name.
  int external(const std::string& name) const { return arguments_.external(name); }

  // Sets the memory of inputs and outputs until it is set again. The caller keeps it alive while the program runs.
  void set(const std::vector<Argument>& arguments);

  // Runs the graph. Checks before the first kernel: missing tensors, sizes that contradict each other, overlapping
  // memory. Errors in the data (an index out of range) are found while running; outputs are then undefined.
  // `interrupted` is called regularly; if it returns true, the run ends and run() returns false.
  bool run(const std::function<bool()>& interrupted = {});

  // Sets arguments for this and later runs, and runs, as one operation.
  bool run(const std::vector<Argument>& arguments, const std::function<bool()>& interrupted = {});

  // Sets arguments and begins a run in slices, which the program outlives.
  std::unique_ptr<SlicedRun> start(const std::vector<Argument>& arguments);

  // Sets arguments and returns the shapes that the outputs must have, in the order of the tensors.
  std::vector<std::vector<int64_t>> output_shapes(const std::vector<Argument>& arguments);

  // Starts or stops to keep the times of runs; drops what was kept.
  void set_recording(bool on);
  // Returns and forgets the kept runs, at most the latest RunRecord::kMost.
  std::vector<RunTimes> take_runs();

  // Returns the memory of the plan for the present arguments; builds the plan if needed.
  struct PlanInfo {
    size_t steps, arena_bytes, shared_bytes, scratch_bytes;
  };
  PlanInfo plan_info();
  size_t num_plans() const;

 private:
  friend class SlicedRun;

  void set_locked(const std::vector<Argument>& arguments);
  bool run_locked(const std::function<bool()>& interrupted);
  void check_weights() const;
  // Returns the plan for the arguments, after their checks.
  Plan& plan();
  // Keeps a plan that a run had for itself.
  void keep(std::unique_ptr<Plan> plan, uint64_t generation);
  [[noreturn]] void fail_in(const Plan::Step& step, const std::string& message) const;

  std::shared_ptr<Runtime> runtime_;
  std::shared_ptr<WeightStore> store_;
  const Graph graph_;

  mutable ForkSafeMutex mutex_;  // taken before the pool's lease
  Arguments arguments_;
  bool changed_ = true;                       // since the first of the plans was chosen
  std::vector<std::unique_ptr<Plan>> plans_;  // most recently used first
  uint64_t generation_ = 0;                   // of the store, when the plans were made

  RunRecord record_;
};

}  // namespace atb_core
