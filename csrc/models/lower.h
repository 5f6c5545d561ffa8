// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <map>
#include <string>
#include <vector>

#include "atb_core/model_graph.h"
#include "graph/graph.h"

namespace atb_core {

// A model's graph in the form that engines take, and the numbers of its tensors there (-1: no node reads it, it is left
// out).
struct LoweredGraph {
  GraphSpec spec;
  std::vector<int> ids;       // by number in the ModelGraph
  std::vector<int> segments;  // by node
};

// Throws Error with the name of a node that reads a tensor which does not exist, of an output that no node makes, or of
// an input, cache or output whose name is empty or not unique.
void check_graph(const ModelGraph& graph);

// Returns the sizes of the dimensions that the weights' real shapes determine. Throws Error naming a weight that does
// not fit.
std::map<std::string, int64_t> weight_sizes(const ModelGraph& graph, const std::vector<TensorView>& weights);

// Checks the graph and lowers it. `sizes` become constants; weight i is called `weight_names[i]`, and weights of one
// name are one tensor.
LoweredGraph lower(const ModelGraph& graph, const std::map<std::string, int64_t>& sizes,
                   const std::vector<std::string>& weight_names);

// Returns the tensors of a role, in the order in which they were recorded.
std::vector<int> tensors_of(const ModelGraph& graph, Role role);

}  // namespace atb_core
