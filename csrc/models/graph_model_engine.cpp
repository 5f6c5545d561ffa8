// SPDX-License-Identifier: Apache-2.0
#include "models/graph_model_engine.h"

#include <algorithm>
#include <map>
#include <utility>

#include "atb_core/error.h"
#include "models/lower.h"

namespace atb_core {
namespace {

TensorView view_of(DataType dtype, const std::vector<int64_t>& shape) {
  TensorView view;
  view.dtype = dtype;
  view.rank = static_cast<int>(shape.size());
  std::copy(shape.begin(), shape.end(), view.shape);
  return view;
}

std::vector<int64_t> shape_of(const TensorView& view) { return {view.shape, view.shape + view.rank}; }

}  // namespace

void GraphModelEngine::build(const ModelGraph& graph) {
  const std::lock_guard lock(mutex_);
  graph_ = graph;
  inputs_ = tensors_of(graph, Role::input);
  outputs_ = tensors_of(graph, Role::output);
  caches_ = tensors_of(graph, Role::cache);
  if (caches_.size() % 2 != 0) fail("a model needs as many caches for values as for keys");
  input_names_.clear();
  for (int id : inputs_) input_names_.push_back(graph.tensors()[static_cast<size_t>(id)].name);
  program_.reset();
  weights_.clear();
  given_caches_.clear();
  constants_.clear();
}

void GraphModelEngine::set_weights(const std::vector<TensorView>& weights) {
  const std::lock_guard lock(mutex_);
  // Tied weights are one tensor that occurs twice.
  std::map<std::pair<const void*, std::vector<int64_t>>, std::string> known;
  std::vector<std::string> names;
  for (const TensorView& weight : weights) {
    const std::string fresh = "weight_" + std::to_string(names.size());
    names.push_back(known.emplace(std::pair(weight.data, shape_of(weight)), fresh).first->second);
  }
  take_weights(names, weights);
  for (const TensorView& weight : weights) {
    const auto first = known.extract(std::pair(weight.data, shape_of(weight)));
    if (!first.empty()) backend_->set_weight(first.mapped(), weight);
  }
}

void GraphModelEngine::declare_weights(const std::vector<std::string>& names, const std::vector<TensorView>& weights) {
  const std::lock_guard lock(mutex_);
  take_weights(names, weights);
}

void GraphModelEngine::take_weights(const std::vector<std::string>& names, const std::vector<TensorView>& weights) {
  if (names.size() != weights.size()) fail(names.size(), " names were given for ", weights.size(), " weights");
  weight_sizes(graph_, weights);  // checks everything before anything is kept
  std::map<std::string, const TensorView*> known;
  std::vector<GivenWeight> given;
  for (size_t i = 0; i < weights.size(); ++i) {
    const TensorView& first = *known.emplace(names[i], &weights[i]).first->second;
    if (first.dtype != weights[i].dtype || shape_of(first) != shape_of(weights[i])) {
      fail("two weights of different shapes or types are both called '", names[i], "'");
    }
    given.push_back({names[i], weights[i].dtype, shape_of(weights[i])});
  }
  if (!weights_.empty() && given != weights_) {
    fail("these weights differ from the first ones in shape, type or in which are one: build the graph again first");
  }
  // Builds the program before the data arrives: it declares how weights are used, so that each is stored in its final
  // layout.
  make_program(backend_, given);
  weights_ = std::move(given);
}

void GraphModelEngine::share_weights(const GraphModelEngine& other) {
  if (&other == this) return;
  const std::scoped_lock lock(mutex_, other.mutex_);
  if (other.weights_.empty()) fail("the model whose weights are to be shared has none yet");
  std::vector<TensorView> views;
  for (const GivenWeight& weight : other.weights_) views.push_back(view_of(weight.dtype, weight.shape));
  weight_sizes(graph_, views);
  make_program(other.backend_, other.weights_);
  weights_ = other.weights_;
}

void GraphModelEngine::make_program(std::shared_ptr<GraphBackend> backend, const std::vector<GivenWeight>& weights) {
  std::vector<TensorView> views;
  std::vector<std::string> names;
  for (const GivenWeight& weight : weights) {
    views.push_back(view_of(weight.dtype, weight.shape));
    names.push_back(weight.stored_as);
  }
  LoweredGraph lowered = lower(graph_, weight_sizes(graph_, views), names);
  program_ = backend->build(std::move(lowered.spec), lowered.segments);
  backend_ = std::move(backend);
  ids_ = std::move(lowered.ids);
  if (!given_caches_.empty()) program_->set(arguments(caches_, given_caches_, "cache"));
  bind_constants(constants_);
}

void GraphModelEngine::set_caches(const std::vector<TensorView>& keys, const std::vector<TensorView>& values) {
  const std::lock_guard lock(mutex_);
  if (!program_) fail("set the weights before the caches");
  const size_t layers = caches_.size() / 2;
  if (keys.size() != layers || values.size() != layers) {
    fail(keys.size(), " key caches and ", values.size(), " value caches were given where ", layers, " are needed");
  }
  // A layer records the cache of its keys, then that of its values.
  std::vector<TensorView> views;
  for (size_t i = 0; i < layers; ++i) {
    views.push_back(keys[i]);
    views.push_back(values[i]);
  }
  program_->set(arguments(caches_, views, "cache"));
  given_caches_ = std::move(views);
}

void GraphModelEngine::set_constants(const std::vector<TensorView>& inputs) {
  const std::lock_guard lock(mutex_);
  check_count(inputs_, inputs, "input");
  std::map<int, TensorView> given;
  for (size_t i = 0; i < inputs.size(); ++i) {
    if (!inputs[i].data) continue;
    argument(inputs_[i], inputs[i], "input " + std::to_string(i));  // throws before anything changes
    given.emplace(inputs_[i], inputs[i]);
  }
  // If the program refuses the new constants, the previous ones are dropped as well: later steps have to pass them.
  for (const auto& [tensor, view] : given) constants_.erase(tensor);
  bind_constants(given);
  constants_.merge(given);
}

void GraphModelEngine::bind_constants(const std::map<int, TensorView>& constants) {
  std::vector<Argument> here, there;
  for (const auto& [tensor, view] : constants) {
    if (is_read(tensor)) (view.on_device ? there : here).push_back(argument(tensor, view, "constant"));
  }
  program_->set_constants(here);
  program_->set(there);  // tensors that are on the device already are not copied
}

void GraphModelEngine::check_count(const std::vector<int>& tensors, const std::vector<TensorView>& views,
                                   const char* what) const {
  if (!program_) fail("the model has no weights yet: set them first");
  if (views.size() != tensors.size()) {
    fail(views.size(), " ", what, "s were given where ", tensors.size(), " are needed");
  }
}

std::vector<Argument> GraphModelEngine::arguments(const std::vector<int>& tensors, const std::vector<TensorView>& views,
                                                  const char* what) const {
  check_count(tensors, views, what);
  std::vector<Argument> result;
  for (size_t i = 0; i < tensors.size(); ++i) {
    if (!is_read(tensors[i]) || (!views[i].data && constants_.contains(tensors[i]))) continue;
    result.push_back(argument(tensors[i], views[i], std::string(what) + " " + std::to_string(i)));
  }
  return result;
}

Argument GraphModelEngine::argument(int tensor, const TensorView& view, const std::string& what) const {
  const ModelGraph::Tensor& declared = graph_.tensors()[static_cast<size_t>(tensor)];
  if (!view.data) fail(what, ", '", declared.name, "', is missing");
  if (view.dtype != declared.dtype) {
    fail(what, ", '", declared.name, "', is ", name(view.dtype), " where ", name(declared.dtype), " is needed");
  }
  return {ids_[static_cast<size_t>(tensor)], view.data, shape_of(view), view.on_device, view.host};
}

void GraphModelEngine::run(const std::vector<TensorView>& inputs, const std::vector<TensorView>& outputs) {
  const std::lock_guard lock(mutex_);
  std::vector<Argument> given = arguments(inputs_, inputs, "input");
  for (Argument& output : arguments(outputs_, outputs, "output")) given.push_back(std::move(output));
  // Even if the step fails, the program now holds addresses that are valid for this step only.
  for (size_t i = 0; i < inputs.size(); ++i) {
    if (inputs[i].data) constants_.erase(inputs_[i]);
  }
  if (!program_->run(given, interrupted)) fail("the step was interrupted");
}

std::vector<std::vector<int64_t>> GraphModelEngine::output_shapes(const std::vector<TensorView>& inputs) {
  const std::lock_guard lock(mutex_);
  const std::vector<Argument> given = arguments(inputs_, inputs, "input");
  return program_->output_shapes(given);
}

}  // namespace atb_core
