// SPDX-License-Identifier: Apache-2.0
#include "models/cpu_model_engine.h"

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

void CpuModelEngine::build(const ModelGraph& graph) {
  graph_ = graph;
  inputs_ = tensors_of(graph, Role::input);
  outputs_ = tensors_of(graph, Role::output);
  caches_ = tensors_of(graph, Role::cache);
  if (caches_.size() % 2 != 0) fail("a model needs as many caches for values as for keys");
  input_names_.clear();
  for (int id : inputs_) input_names_.push_back(graph.tensors()[static_cast<size_t>(id)].name);
  program_.reset();
  weights_.clear();
}

void CpuModelEngine::set_weights(const std::vector<TensorView>& weights) {
  // Tied weights are one tensor that is given twice.
  std::map<std::pair<const void*, std::vector<int64_t>>, std::string> known;
  std::vector<std::string> names;
  for (const TensorView& weight : weights) {
    const std::string fresh = "weight_" + std::to_string(names.size());
    names.push_back(known.emplace(std::pair(weight.data, shape_of(weight)), fresh).first->second);
  }
  declare_weights(names, weights);
  for (const TensorView& weight : weights) {
    const auto first = known.extract(std::pair(weight.data, shape_of(weight)));
    if (!first.empty()) store_->set(first.mapped(), weight.data, weight.dtype, shape_of(weight));
  }
}

void CpuModelEngine::declare_weights(const std::vector<std::string>& names, const std::vector<TensorView>& weights) {
  if (names.size() != weights.size()) fail(names.size(), " names were given for ", weights.size(), " weights");
  weight_sizes(graph_, weights);  // everything is checked before anything is kept
  std::map<std::string, const TensorView*> known;
  std::vector<GivenWeight> given;
  for (size_t i = 0; i < weights.size(); ++i) {
    const TensorView& first = *known.emplace(names[i], &weights[i]).first->second;
    if (first.dtype != weights[i].dtype || shape_of(first) != shape_of(weights[i])) {
      fail("two weights of different shapes or types are both called '", names[i], "'");
    }
    given.push_back({names[i], weights[i].dtype, shape_of(weights[i])});
  }
  weights_ = std::move(given);
  // The program comes before the data: it tells the store how the weights will be used, so that each is packed at once.
  make_program();
}

void CpuModelEngine::share_weights(const CpuModelEngine& other) {
  if (other.weights_.empty()) fail("the model whose weights are to be shared has none yet");
  std::vector<TensorView> views;
  for (const GivenWeight& weight : other.weights_) views.push_back(view_of(weight.dtype, weight.shape));
  weight_sizes(graph_, views);
  runtime_ = other.runtime_;
  store_ = other.store_;
  weights_ = other.weights_;
  make_program();
}

void CpuModelEngine::make_program() {
  std::vector<TensorView> views;
  std::vector<std::string> names;
  for (const GivenWeight& weight : weights_) {
    views.push_back(view_of(weight.dtype, weight.shape));
    names.push_back(weight.stored_as);
  }
  LoweredGraph lowered = lower(graph_, weight_sizes(graph_, views), names);
  ids_ = std::move(lowered.ids);
  program_ = std::make_unique<Program>(runtime_, store_, std::move(lowered.spec));
  if (!given_caches_.empty()) program_->set(given_caches_);
}

void CpuModelEngine::set_caches(const std::vector<TensorView>& keys, const std::vector<TensorView>& values) {
  if (!program_) fail("set the weights before the caches");
  const size_t layers = caches_.size() / 2;
  if (keys.size() != layers || values.size() != layers) {
    fail(keys.size(), " key caches and ", values.size(), " value caches were given where ", layers, " are needed");
  }
  // A layer records its keys' cache and then its values'.
  std::vector<TensorView> views;
  for (size_t i = 0; i < layers; ++i) {
    views.push_back(keys[i]);
    views.push_back(values[i]);
  }
  std::vector<Argument> given = arguments(caches_, views, "cache");
  program_->set(given);
  given_caches_ = std::move(given);
}

std::vector<Argument> CpuModelEngine::arguments(const std::vector<int>& tensors, const std::vector<TensorView>& views,
                                                const char* what) const {
  if (!program_) fail("the model has no weights yet: set them first");
  if (views.size() != tensors.size()) {
    fail(views.size(), " ", what, "s were given where ", tensors.size(), " are needed");
  }
  std::vector<Argument> result;
  for (size_t i = 0; i < tensors.size(); ++i) {
    const size_t number = static_cast<size_t>(tensors[i]);
    if (ids_[number] < 0) continue;  // no node reads it
    const ModelGraph::Tensor& declared = graph_.tensors()[number];
    if (!views[i].data) fail(what, " ", i, ", '", declared.name, "', is missing");
    if (views[i].dtype != declared.dtype) {
      fail(what, " ", i, ", '", declared.name, "', is ", name(views[i].dtype), " where ", name(declared.dtype),
           " is needed");
    }
    result.push_back({ids_[number], views[i].data, shape_of(views[i])});
  }
  return result;
}

void CpuModelEngine::run(const std::vector<TensorView>& inputs, const std::vector<TensorView>& outputs) {
  std::vector<Argument> given = arguments(inputs_, inputs, "input");
  for (Argument& output : arguments(outputs_, outputs, "output")) given.push_back(std::move(output));
  if (!program_->run(given, interrupted)) fail("the step was interrupted");
}

std::vector<std::vector<int64_t>> CpuModelEngine::output_shapes(const std::vector<TensorView>& inputs) {
  const std::vector<Argument> given = arguments(inputs_, inputs, "input");
  return program_->output_shapes(given);
}

}  // namespace atb_core
