// SPDX-License-Identifier: Apache-2.0
#include "graph/program.h"

#include <algorithm>
#include <map>

#include "atb_core/error.h"
#include "graph/executor.h"

namespace atb_core {
namespace {

bool is_external(const TensorSpec& tensor) {
  return tensor.kind == TensorKind::input || tensor.kind == TensorKind::output;
}

std::vector<int64_t> constant_shape(const TensorSpec& tensor) {
  std::vector<int64_t> shape;
  for (const DimExpr& size : tensor.shape) shape.push_back(size.evaluate({}));
  return shape;
}

}  // namespace

Program::Program(std::shared_ptr<Runtime> runtime, std::shared_ptr<WeightStore> store, GraphSpec spec)
    : runtime_(std::move(runtime)), store_(std::move(store)), graph_(std::move(spec)) {
  const size_t count = graph_.tensors().size();
  externals_.resize(count);
  pointers_.resize(count);
  std::map<int, std::vector<WeightUse>> uses;
  for (size_t i = 0; i < count; ++i) {
    if (is_external(graph_.tensors()[i])) external_ids_.push_back(static_cast<int>(i));
    if (graph_.tensors()[i].kind == TensorKind::weight) uses[static_cast<int>(i)];
  }
  for (const Graph::Node& node : graph_.nodes()) {
    for (size_t k = 0; k < node.inputs.size(); ++k) {
      const auto found = uses.find(node.inputs[k]);
      if (found == uses.end()) continue;
      const auto use = node.def->weight_use;
      found->second.push_back(use == nullptr ? WeightUse::plain : use(node.attributes, static_cast<int>(k)));
    }
  }
  for (const auto& [id, how] : uses) {
    const TensorSpec& weight = graph_.tensor(id);
    store_->declare(weight.name, weight.dtype, constant_shape(weight), how);
  }
  for (const Graph::Node& node : graph_.nodes()) times_.push_back({node.label, node.op, 0, 0});
  for (const TensorSpec& tensor : graph_.tensors()) times_.push_back({tensor.name, "copy to output", 0, 0});
}

int Program::external(const std::string& name) const {
  for (int id : external_ids_) {
    if (graph_.tensor(id).name == name) return id;
  }
  fail("there is no input or output '", name, "'");
}

void Program::set_locked(const std::vector<Argument>& arguments) {
  for (const Argument& argument : arguments) {
    const size_t id = static_cast<size_t>(argument.tensor);
    if (argument.tensor < 0 || id >= externals_.size() || !is_external(graph_.tensors()[id])) {
      fail("tensor ", argument.tensor, " is no input or output");
    }
    const TensorSpec& tensor = graph_.tensors()[id];
    const size_t alignment = itemsize(tensor.dtype);
    if (reinterpret_cast<uintptr_t>(argument.data) % alignment != 0) {
      fail("the memory of '", tensor.name, "' is not aligned to its element size, ", alignment);
    }
    int64_t elements = 1;
    for (int64_t size : argument.shape) {
      if (size < 0 || __builtin_mul_overflow(elements, size, &elements)) {
        fail("'", tensor.name, "' has the impossible shape ", shape_text(argument.shape));
      }
    }
    if (elements > 0 && argument.data == nullptr) fail("'", tensor.name, "' has no data");
    externals_[id] = {argument.data, argument.shape, true};
    pointers_[id] = argument.data;
  }
}

std::vector<int64_t> Program::resolve_sizes(bool with_outputs) const {
  std::vector<int64_t> sizes(graph_.dims().size(), -1);
  // Again as long as there are sizes that another tensor has to tell, and one more was told in the last round.
  for (auto known = std::ptrdiff_t{-1};;) {
    bool complete = true;
    for (int id : external_ids_) {
      const TensorSpec& tensor = graph_.tensor(id);
      const External& given = externals_[static_cast<size_t>(id)];
      if (tensor.kind == TensorKind::output && !with_outputs) continue;
      if (!given.set) fail(tensor.kind == TensorKind::input ? "input" : "output", " '", tensor.name, "' is missing");
      complete = match_shape(tensor.name, tensor.shape, given.shape, graph_.dims(), sizes) && complete;
    }
    const auto open = std::count(sizes.begin(), sizes.end(), -1);
    if (complete && open == 0) return sizes;
    if (complete || open == known) break;
    known = open;
  }
  const auto open = std::find(sizes.begin(), sizes.end(), -1);
  fail("no input or output tells the size of dimension '", graph_.dims()[static_cast<size_t>(open - sizes.begin())],
       "'");
}

void Program::check_overlap() const {
  struct Range {
    const std::byte *begin, *end;
    bool written;
    int id;
  };
  std::vector<Range> ranges;
  ranges.reserve(external_ids_.size());
  for (int id : external_ids_) {
    const External& given = externals_[static_cast<size_t>(id)];
    size_t bytes = itemsize(graph_.tensor(id).dtype);
    for (int64_t size : given.shape) bytes *= static_cast<size_t>(size);
    if (bytes == 0) continue;
    const auto* begin = static_cast<const std::byte*>(given.data);
    ranges.push_back({begin, begin + bytes, graph_.tensor(id).kind == TensorKind::output || graph_.written(id), id});
  }
  std::sort(ranges.begin(), ranges.end(), [](const Range& a, const Range& b) { return a.begin < b.begin; });
  // The range that reaches furthest so far, and the furthest written one: whoever starts before its end meets it.
  const Range *furthest = nullptr, *written = nullptr;
  for (const Range& range : ranges) {
    const Range* other = range.written ? furthest : written;
    if (other != nullptr && range.begin < other->end) {
      fail("'", graph_.tensor(other->id).name, "' and '", graph_.tensor(range.id).name,
           "' share memory, and at least one of them is written");
    }
    if (furthest == nullptr || range.end > furthest->end) furthest = &range;
    if (range.written && (written == nullptr || range.end > written->end)) written = &range;
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
  std::vector<int64_t> sizes = resolve_sizes(true);
  const auto found =
      std::find_if(plans_.begin(), plans_.end(), [&](const auto& plan) { return plan->sizes() == sizes; });
  if (found == plans_.end()) {
    auto made = std::make_unique<Plan>(graph_, std::move(sizes), *store_, *runtime_);
    if (plans_.size() >= kMaxPlans) plans_.pop_back();
    plans_.insert(plans_.begin(), std::move(made));
  } else {
    std::rotate(plans_.begin(), found, found + 1);
  }
  return *plans_.front();
}

bool Program::run_locked(const std::function<bool()>& interrupted) {
  auto lease = runtime_->pool().lease();
  Plan& current = plan();
  check_overlap();
  const Runtime::Workspace workspace = runtime_->workspace(lease, current.arena_bytes(), current.scratch());
  current.attach(workspace.arena, pointers_);

  std::vector<double> seconds(profiling_ ? current.steps().size() : 0);
  const RunOptions options{.interrupted = interrupted ? &interrupted : nullptr, .seconds = seconds};
  const RunResult result = execute(current, *runtime_, lease, workspace, options);
  for (size_t i = 0; i < seconds.size(); ++i) {
    const Plan::Step& step = current.steps()[i];
    const size_t row =
        step.node >= 0 ? static_cast<size_t>(step.node) : graph_.nodes().size() + static_cast<size_t>(step.tensor);
    times_[row].seconds += seconds[i];
    ++times_[row].runs;
  }
  if (result.status == RunResult::Status::failed) fail_in(current.steps()[result.step], result.message);
  return result.status == RunResult::Status::done;
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
  set_locked(arguments);
  const std::vector<int64_t> sizes = resolve_sizes(false);
  std::vector<std::vector<int64_t>> shapes;
  for (const TensorSpec& tensor : graph_.tensors()) {
    if (tensor.kind != TensorKind::output) continue;
    std::vector<int64_t>& shape = shapes.emplace_back();
    for (const DimExpr& size : tensor.shape) shape.push_back(size.evaluate(sizes));
  }
  return shapes;
}

void Program::set_profiling(bool on) {
  const std::lock_guard lock(mutex_);
  profiling_ = on;
  for (NodeTime& time : times_) time.seconds = 0, time.runs = 0;
}

std::vector<Program::NodeTime> Program::profile() const {
  const std::lock_guard lock(mutex_);
  std::vector<NodeTime> result;
  std::copy_if(times_.begin(), times_.end(), std::back_inserter(result),
               [](const auto& time) { return time.runs > 0; });
  return result;
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
