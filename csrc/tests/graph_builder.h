// SPDX-License-Identifier: Apache-2.0
// Construction of graphs for tests.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "graph/graph.h"

namespace atb_core::test {

class GraphBuilder {
 public:
  explicit GraphBuilder(std::vector<std::string> dims = {}) { spec.dims = std::move(dims); }

  DimExpr dim(int index) const { return DimExpr({{DimExpr::Op::dim, index}}, static_cast<int>(spec.dims.size())); }

  int add(std::string name, TensorKind kind, SymbolicShape shape, DataType dtype = DataType::f32) {
    spec.tensors.push_back({std::move(name), dtype, kind, std::move(shape)});
    return static_cast<int>(spec.tensors.size()) - 1;
  }
  int add(std::string name, TensorKind kind, std::vector<int64_t> shape, DataType dtype = DataType::f32) {
    SymbolicShape sizes;
    for (int64_t size : shape) sizes.emplace_back(size);
    return add(std::move(name), kind, std::move(sizes), dtype);
  }
  GraphBuilder& node(std::string op, Attributes attributes, std::vector<int> inputs, std::vector<int> outputs) {
    const std::string label = "node" + std::to_string(spec.nodes.size());
    spec.nodes.push_back({std::move(op), label, std::move(attributes), std::move(inputs), std::move(outputs)});
    return *this;
  }

  GraphSpec spec;
};

inline Attributes elewise(const char* type, double factor = 0) {
  return {{"elewise_type", std::string(type)}, {"var_attr", factor}};
}

}  // namespace atb_core::test
