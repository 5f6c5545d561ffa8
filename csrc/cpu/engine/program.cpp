// SPDX-License-Identifier: Apache-2.0
#include "cpu/engine/program.h"

#include <algorithm>
#include <iterator>
#include <map>

#include "atb_core/error.h"

namespace atb_core {
namespace {

std::vector<int64_t> constant_shape(const TensorSpec& tensor) {
  std::vector<int64_t> shape;
  for (const DimExpr& size : tensor.shape) shape.push_back(size.evaluate({}));
  return shape;
}

}  // namespace

Program::Program(std::shared_ptr<Runtime> runtime, std::shared_ptr<WeightStore> store, GraphSpec spec)
    : runtime_(std::move(runtime)), store_(std::move(store)), graph_(std::move(spec)), arguments_(graph_) {
  const size_t count = graph_.tensors().size();
  std::map<int, std::vector<WeightUse>> uses;
  for (size_t i = 0; i < count; ++i) {
    if (graph_.tensors()[i].kind == TensorKind::weight) uses[static_cast<int>(i)];
  }
  for (const Graph::Node& node : graph_.nodes()) {
    for (size_t k = 0; k < node.inputs.size(); ++k) {
      const auto found = uses.find(node.inputs[k]);
      if (found == uses.end()) continue;
      const auto use = cpu_op(node.op).weight_use;
      found->second.push_back(use == nullptr ? WeightUse::plain : use(node.attributes, static_cast<int>(k)));
    }
  }
  for (const auto& [id, how] : uses) {
    const TensorSpec& weight = graph_.tensor(id);
    store_->declare(weight.name, weight.dtype, constant_shape(weight), how);
  }
}

void Program::check_weights() const {
  std::string missing;
  int count = 0;
  for (const TensorSpec& tensor : graph_.tensors()) {
    if (tensor.kind != TensorKind::weight || store_->contains(tensor.name)) continue;
    missing += (count++ ? ", '" : "'") + tensor.name + "'";
  }
  if (count > 0) fail(count == 1 ? "weight " : "weights ", missing, count == 1 ? " has" : " have", " not been set");
}

Plan& Program::plan() {
  if (const uint64_t generation = store_->generation(); generation != generation_) {
    plans_.clear();
    check_weights();
    generation_ = generation;
  }
  // Arguments that have run before need no second look, which would take microseconds of every step.
  if (!changed_ && !plans_.empty()) return *plans_.front();
  std::vector<int64_t> sizes = arguments_.resolve_sizes(true);
  const auto found =
      std::find_if(plans_.begin(), plans_.end(), [&](const auto& plan) { return plan->sizes() == sizes; });
  if (found == plans_.end()) {
    auto made = std::make_unique<Plan>(graph_, std::move(sizes), *store_, *runtime_);
    if (plans_.size() >= kMaxPlans) plans_.pop_back();
    plans_.insert(plans_.begin(), std::move(made));
  } else {
    std::rotate(plans_.begin(), found, found + 1);
  }
  arguments_.check_overlap();
  changed_ = false;
  return *plans_.front();
}

void Program::set_locked(const std::vector<Argument>& arguments) {
  if (arguments_.set(arguments)) changed_ = true;
}

bool Program::run_locked(const std::function<bool()>& interrupted) {
  auto lease = runtime_->pool().lease();
  Plan& current = plan();
  const Runtime::Workspace workspace = runtime_->workspace(lease, current.arena_bytes(), current.scratch());
  Execution execution(current, *runtime_, record_.on());
  current.attach(workspace.arena, arguments_.pointers());
  const RunResult result = execution.advance(lease, workspace, interrupted);
  execution.record(record_);
  if (result.status == RunResult::Status::failed) fail_in(current.steps()[result.step], result.message);
  return result.status == RunResult::Status::done;
}

std::unique_ptr<SlicedRun> Program::start(const std::vector<Argument>& arguments) {
  const std::lock_guard lock(mutex_);
  set_locked(arguments);
  const auto lease = runtime_->pool().lease();
  static_cast<void>(plan());
  std::unique_ptr<Plan> own = std::move(plans_.front());
  plans_.erase(plans_.begin());
  // The next run with these arguments needs another plan.
  changed_ = true;
  return std::make_unique<SlicedRun>(*this, std::move(own), arguments_.pointers(), record_.on());
}

void Program::keep(std::unique_ptr<Plan> plan, uint64_t generation) {
  if (generation != generation_ || plans_.size() >= kMaxPlans) return;
  const auto is_same = [&](const auto& other) { return other->sizes() == plan->sizes(); };
  if (std::any_of(plans_.begin(), plans_.end(), is_same)) return;
  plans_.push_back(std::move(plan));
}

void Program::fail_in(const Plan::Step& step, const std::string& message) const {
  const std::string where = step.node < 0 ? "an output" : describe(graph_.nodes()[static_cast<size_t>(step.node)]);
  fail(where, ": ", message);
}

void Program::set(const std::vector<Argument>& arguments) {
  const std::lock_guard lock(mutex_);
  set_locked(arguments);
}

bool Program::run(const std::function<bool()>& interrupted) {
  const std::lock_guard lock(mutex_);
  return run_locked(interrupted);
}

bool Program::run(const std::vector<Argument>& arguments, const std::function<bool()>& interrupted) {
  const std::lock_guard lock(mutex_);
  set_locked(arguments);
  return run_locked(interrupted);
}

std::vector<std::vector<int64_t>> Program::output_shapes(const std::vector<Argument>& arguments) {
  const std::lock_guard lock(mutex_);
  return arguments_.output_shapes(arguments);
}

void Program::set_recording(bool on) {
  const std::lock_guard lock(mutex_);
  record_.set(on);
}

std::vector<RunTimes> Program::take_runs() {
  const std::lock_guard lock(mutex_);
  return record_.take();
}

Program::PlanInfo Program::plan_info() {
  const std::lock_guard lock(mutex_);
  const auto lease = runtime_->pool().lease();
  const Plan& current = plan();
  return {current.steps().size(), current.arena_bytes(), current.scratch().shared, current.scratch().per_thread};
}

size_t Program::num_plans() const {
  const std::lock_guard lock(mutex_);
  return plans_.size();
}

}  // namespace atb_core
