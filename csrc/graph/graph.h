// SPDX-License-Identifier: Apache-2.0
// The graph that all backends share: tensors, nodes, and symbolic shapes.
#pragma once

#include <string>
#include <vector>

#include "atb_core/types.h"
#include "graph/attributes.h"
#include "graph/dims.h"

namespace atb_core {

struct OpSignature;

// input: set for every run, or once (a KV cache); may be written by ops whose signature says so.
// weight: found in the store of weights by name. output: memory set for every run. internal: memory is planned.
enum class TensorKind { input, weight, output, internal };

struct TensorSpec {
  std::string name;
  DataType dtype;
  TensorKind kind;
  SymbolicShape shape;
};

struct NodeSpec {
  std::string op;
  std::string label;  // the module path, for messages and profiles
  Attributes attributes;
  std::vector<int> inputs, outputs;  // indices of tensors
};

struct GraphSpec {
  std::vector<std::string> dims;
  std::vector<TensorSpec> tensors;
  std::vector<NodeSpec> nodes;  // in the order of execution
};

// A validated GraphSpec.
class Graph {
 public:
  struct Node : NodeSpec {
    const OpSignature* op_signature;
  };

  // Throws Error naming op, label and tensor if the graph is not valid.
  explicit Graph(GraphSpec spec);

  const std::vector<std::string>& dims() const { return dims_; }
  const std::vector<TensorSpec>& tensors() const { return tensors_; }
  const TensorSpec& tensor(int id) const { return tensors_[static_cast<size_t>(id)]; }
  const std::vector<Node>& nodes() const { return nodes_; }

  // Returns true if a node writes the tensor in place, or a tensor that always shares its memory (Reshape).
  bool written(int id) const { return written_[static_cast<size_t>(root(id))]; }

 private:
  void check_tensors() const;
  void add_node(NodeSpec node, std::vector<bool>& defined);
  int root(int id) const { return roots_[static_cast<size_t>(id)]; }

  std::vector<std::string> dims_;
  std::vector<TensorSpec> tensors_;
  std::vector<Node> nodes_;
  std::vector<int> roots_;
  std::vector<bool> written_;
};

// Returns "RmsNorm at model.layers.0.norm".
std::string describe(const NodeSpec& node);

}  // namespace atb_core
