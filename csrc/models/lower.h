// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <map>
#include <string>
#include <vector>

#include "atb_core/model_graph.h"
#include "graph/graph.h"

namespace atb_core {

// A model's graph as the engine takes it, and where its tensors went (-1: no node reads it, so it is left out).
struct LoweredGraph {
  GraphSpec spec;
  std::vector<int> ids;       // by number in the ModelGraph
  std::vector<int> segments;  // by node
};

// Throws Error with the name of what no engine could run: a node that reads a tensor which is not there, an output that
// no node makes, inputs, caches or outputs without a name or of the same one.
void check_graph(const ModelGraph& graph);

// The numbers of the dimensions that the weights' real shapes tell. Throws Error naming the weight that does not fit.
std::map<std::string, int64_t> weight_sizes(const ModelGraph& graph, const std::vector<TensorView>& weights);

// Checks the graph first. `sizes` become constants; weight i is called `weight_names[i]`, and weights of one name are one tensor.
LoweredGraph lower(const ModelGraph& graph, const std::map<std::string, int64_t>& sizes,
                   const std::vector<std::string>& weight_names);

// The tensors of a role, in the order in which they were recorded.
std::vector<int> tensors_of(const ModelGraph& graph, Role role);

}  // namespace atb_core
