// SPDX-License-Identifier: Apache-2.0
#include "graph/graph.h"

#include <set>

#include "atb_core/error.h"
#include "graph/op.h"

namespace atb_core {
namespace {

void check_count(const char* what, size_t count, const Arity& arity) {
  const size_t least = static_cast<size_t>(arity.least), most = static_cast<size_t>(arity.most);
  if (count >= least && count <= most) return;
  if (least == most) fail("it has ", count, " ", what, ", not ", least);
  if (arity.most == kAnyNumber) fail("it has ", count, " ", what, ", at least ", least, " are needed");
  fail("it has ", count, " ", what, ", not ", least, " to ", most);
}

}  // namespace

std::string describe(const NodeSpec& node) { return node.label.empty() ? node.op : node.op + " at " + node.label; }

Graph::Graph(GraphSpec spec) : dims_(std::move(spec.dims)), tensors_(std::move(spec.tensors)) {
  check_tensors();
  std::vector<bool> defined(tensors_.size());
  written_.resize(tensors_.size());
  roots_.resize(tensors_.size());
  for (size_t i = 0; i < tensors_.size(); ++i) {
    roots_[i] = static_cast<int>(i);
    defined[i] = tensors_[i].kind == TensorKind::input || tensors_[i].kind == TensorKind::weight;
  }
  nodes_.reserve(spec.nodes.size());
  for (NodeSpec& node : spec.nodes) {
    const std::string where = describe(node);
    try {
      add_node(std::move(node), defined);
    } catch (const Error& error) {
      fail(where, ": ", error.what());
    }
  }
  for (size_t i = 0; i < tensors_.size(); ++i) {
    if (tensors_[i].kind == TensorKind::output && !defined[i]) fail("no node makes output '", tensors_[i].name, "'");
  }
}

void Graph::check_tensors() const {
  std::set<std::string> names;
  for (const TensorSpec& tensor : tensors_) {
    if (tensor.shape.size() > kMaxRank) {
      fail("'", tensor.name, "' has ", tensor.shape.size(), " dimensions; at most ", kMaxRank, " are supported");
    }
    if (tensor.kind == TensorKind::internal) continue;
    if (tensor.name.empty()) fail("an input, weight or output has no name");
    if (!names.insert(tensor.name).second) fail("two inputs, weights or outputs are called '", tensor.name, "'");
    if (tensor.kind != TensorKind::weight) continue;
    for (const DimExpr& size : tensor.shape) {
      if (!size.dims().empty()) fail("weight '", tensor.name, "' has a symbolic shape");
    }
  }
}

void Graph::add_node(NodeSpec node, std::vector<bool>& defined) {
  const OpSignature* signature = find_op(node.op);
  if (signature == nullptr) fail("this engine has no such op");
  if (!signature->any_attributes) node.attributes = checked_attributes(signature->attributes, node.attributes);
  check_count("inputs", node.inputs.size(), signature->inputs);
  check_count("outputs", node.outputs.size(), signature->outputs);
  const auto known = [&](int id) { return id >= 0 && static_cast<size_t>(id) < tensors_.size(); };
  for (int id : node.inputs) {
    if (!known(id)) fail("it refers to unknown tensor ", id);
    if (!defined[static_cast<size_t>(id)]) fail("it reads '", tensor(id).name, "' (tensor ", id, ") before it is made");
  }
  for (int index : signature->writes) {
    const TensorSpec& target = tensor(node.inputs[static_cast<size_t>(index)]);
    if (target.kind == TensorKind::weight) fail("it writes weight '", target.name, "'");
    written_[static_cast<size_t>(root(node.inputs[static_cast<size_t>(index)]))] = true;
  }
  for (int id : node.outputs) {
    if (!known(id)) fail("it refers to unknown tensor ", id);
    if (defined[static_cast<size_t>(id)]) fail("it makes '", tensor(id).name, "' (tensor ", id, ") a second time");
    defined[static_cast<size_t>(id)] = true;
    if (signature->always_view) roots_[static_cast<size_t>(id)] = root(node.inputs[0]);
  }
  nodes_.push_back({std::move(node), signature});
}

}  // namespace atb_core
