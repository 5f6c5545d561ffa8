// SPDX-License-Identifier: Apache-2.0
#include "models/lower.h"

#include <algorithm>
#include <set>

#include "atb_core/error.h"

namespace atb_core {
namespace {

using Sizes = std::map<std::string, int64_t>;

// Holds the names of the dimensions that stay symbolic, and converts sizes to expressions over them.
class Dimensions {
 public:
  explicit Dimensions(const Sizes& known) : known_(known) {}

  const std::vector<std::string>& names() const { return names_; }

  void collect(const Shape& shape) {
    for (const Size& size : shape) {
      const bool open = !size.dimension.empty() && !known_.contains(size.dimension);
      if (open && std::find(names_.begin(), names_.end(), size.dimension) == names_.end()) {
        names_.push_back(size.dimension);
      }
    }
  }

  SymbolicShape expressions(const Shape& shape) const {
    SymbolicShape result;
    for (const Size& size : shape) result.push_back(expression(size));
    return result;
  }

 private:
  DimExpr expression(const Size& size) const {
    if (size.dimension.empty()) return DimExpr(size.factor);
    if (const auto found = known_.find(size.dimension); found != known_.end()) {
      return DimExpr(size.factor * found->second);
    }
    const auto place = std::find(names_.begin(), names_.end(), size.dimension);
    std::vector<DimExpr::Step> steps = {{DimExpr::Op::dim, place - names_.begin()}};
    if (size.factor != 1) {
      steps.push_back({DimExpr::Op::constant, size.factor});
      steps.push_back({DimExpr::Op::mul, 0});
    }
    return DimExpr(std::move(steps), static_cast<int>(names_.size()));
  }

  const Sizes& known_;
  std::vector<std::string> names_;
};

TensorKind kind_of(Role role) {
  switch (role) {
    case Role::weight:
      return TensorKind::weight;
    case Role::output:
      return TensorKind::output;
    case Role::internal:
      return TensorKind::internal;
    case Role::input:
    case Role::cache:
      break;
  }
  return TensorKind::input;
}

// Returns the label of a node, one made from op and number if the author gave none.
std::string label_of(const ModelGraph& graph, size_t node) {
  const std::string& label = graph.nodes()[node].label;
  return label.empty() ? "node " + std::to_string(node) : label;
}

// Checks for each node that the tensors it reads and makes exist. Returns the tensors that nodes make.
std::vector<bool> made_tensors(const ModelGraph& graph) {
  std::vector<bool> made(graph.tensors().size());
  const auto known = [&](int id) { return id >= 0 && static_cast<size_t>(id) < made.size(); };
  for (size_t i = 0; i < graph.nodes().size(); ++i) {
    const ModelGraph::Node& node = graph.nodes()[i];
    for (int id : node.inputs) {
      if (!known(id)) fail(node.op, " at ", label_of(graph, i), " reads tensor ", id, ", which is not there");
    }
    for (int id : node.outputs) {
      if (!known(id)) fail(node.op, " at ", label_of(graph, i), " makes tensor ", id, ", which is not there");
      made[static_cast<size_t>(id)] = true;
    }
  }
  return made;
}

std::vector<bool> used_tensors(const ModelGraph& graph) {
  std::vector<bool> used = made_tensors(graph);
  for (const ModelGraph::Node& node : graph.nodes()) {
    for (int id : node.inputs) used[static_cast<size_t>(id)] = true;
  }
  return used;
}

std::vector<int> moved(const std::vector<int>& numbers, const std::vector<int>& ids) {
  std::vector<int> result;
  for (int number : numbers) result.push_back(ids[static_cast<size_t>(number)]);
  return result;
}

}  // namespace

std::vector<int> tensors_of(const ModelGraph& graph, Role role) {
  std::vector<int> result;
  for (size_t i = 0; i < graph.tensors().size(); ++i) {
    if (graph.tensors()[i].role == role) result.push_back(static_cast<int>(i));
  }
  return result;
}

void check_graph(const ModelGraph& graph) {
  const std::vector<bool> made = made_tensors(graph);
  std::set<std::string> names;
  for (size_t i = 0; i < made.size(); ++i) {
    const ModelGraph::Tensor& tensor = graph.tensors()[i];
    if (tensor.role == Role::output && !made[i]) fail("no op makes the output '", tensor.name, "'");
    // Names of weights are those that the caller passes, and are checked there.
    if (tensor.role == Role::internal || tensor.role == Role::weight) continue;
    if (tensor.name.empty()) fail("an input, cache or output has no name (tensor ", i, ")");
    if (!names.insert(tensor.name).second) fail("two inputs, caches or outputs are called '", tensor.name, "'");
  }
}

std::map<std::string, int64_t> weight_sizes(const ModelGraph& graph, const std::vector<TensorView>& weights) {
  const std::vector<int> ids = tensors_of(graph, Role::weight);
  if (weights.size() != ids.size()) fail(weights.size(), " weights were given where ", ids.size(), " are needed");
  Sizes none;
  Dimensions dimensions(none);
  for (int id : ids) dimensions.collect(graph.tensors()[static_cast<size_t>(id)].shape);
  std::vector<int64_t> sizes(dimensions.names().size(), -1);
  for (size_t i = 0; i < ids.size(); ++i) {
    const ModelGraph::Tensor& declared = graph.tensors()[static_cast<size_t>(ids[i])];
    const std::string name = "weight " + std::to_string(i) + ", " + declared.name;
    const TensorView& real = weights[i];
    if (real.dtype != declared.dtype) {
      fail("'", name, "' is ", atb_core::name(real.dtype), " where ", atb_core::name(declared.dtype), " is needed");
    }
    if (static_cast<size_t>(real.rank) != declared.shape.size()) {
      fail("'", name, "' has ", real.rank, " dimensions where ", declared.shape.size(), " are needed");
    }
    const std::span<const int64_t> shape(real.shape, static_cast<size_t>(real.rank));
    match_shape(name, dimensions.expressions(declared.shape), shape, dimensions.names(), sizes);
  }
  Sizes result;
  for (size_t i = 0; i < sizes.size(); ++i) result.emplace(dimensions.names()[i], sizes[i]);
  return result;
}

LoweredGraph lower(const ModelGraph& graph, const Sizes& sizes, const std::vector<std::string>& weight_names) {
  check_graph(graph);
  const std::vector<bool> used = used_tensors(graph);
  Dimensions dimensions(sizes);
  for (size_t i = 0; i < used.size(); ++i) {
    if (used[i]) dimensions.collect(graph.tensors()[i].shape);
  }
  LoweredGraph result;
  result.spec.dims = dimensions.names();
  result.ids.assign(used.size(), -1);
  std::map<std::string, int> weights;
  size_t next_weight = 0;
  for (size_t i = 0; i < used.size(); ++i) {
    const ModelGraph::Tensor& tensor = graph.tensors()[i];
    const std::string name = tensor.role == Role::weight ? weight_names[next_weight++] : tensor.name;
    if (!used[i]) continue;
    if (tensor.role == Role::weight) {
      const auto [known, fresh] = weights.emplace(name, static_cast<int>(result.spec.tensors.size()));
      result.ids[i] = known->second;
      if (!fresh) continue;
    }
    result.ids[i] = static_cast<int>(result.spec.tensors.size());
    result.spec.tensors.push_back({name, tensor.dtype, kind_of(tensor.role), dimensions.expressions(tensor.shape)});
  }
  for (size_t i = 0; i < graph.nodes().size(); ++i) {
    const ModelGraph::Node& node = graph.nodes()[i];
    result.spec.nodes.push_back({node.op, label_of(graph, i), node.attributes, moved(node.inputs, result.ids),
                                 moved(node.outputs, result.ids)});
    result.segments.push_back(node.segment);
  }
  return result;
}

}  // namespace atb_core
