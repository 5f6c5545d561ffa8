// SPDX-License-Identifier: Apache-2.0
// Consecutive nodes as one graph operation of ATB.
#pragma once

#include <atb/atb_infer.h>

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "atb/device.h"
#include "atb/lowering.h"
#include "graph/graph.h"

namespace atb_core::ascend {

// Owns an operation. With a device, it may outlive the device's shutdown.
class BuiltOperation {
 public:
  explicit BuiltOperation(::atb::Operation* operation, const Device* device = nullptr)
      : operation_(operation), device_(device) {}
  ~BuiltOperation();
  BuiltOperation(const BuiltOperation&) = delete;
  BuiltOperation& operator=(const BuiltOperation&) = delete;
  ::atb::Operation* get() const { return operation_; }
  // Gives up ownership.
  void release() { operation_ = nullptr; }

 private:
  ::atb::Operation* operation_;
  const Device* device_;
};

// The sizes of the graph's dimensions in the present run, which reshape functions inside of operations read.
using Sizes = std::shared_ptr<const std::vector<int64_t>>;

// Returns for each tensor the one whose memory it uses: a view has none of its own.
std::vector<int> memory_roots(const Graph& graph);

struct Segment {
  // An operand of the segment's operation: a tensor with memory of its own, in a layout.
  struct Operand {
    int tensor;
    Layout layout = Layout::nd;
    bool host_data = false;
    QuantFormat format = {};  // of a part of a matrix that is stored as integers
    bool operator<(const Operand& other) const {
      return std::pair(tensor, layout) < std::pair(other.tensor, other.layout);
    }
  };
  // One operation of the segment, over its values: inputs, then outputs, then internals.
  struct Step {
    LocalNode node;
    const Graph::Node* source;
    std::vector<const SymbolicShape*> views;  // by input: the shape in which it is read, null for its own
  };

  // Lengths, an input of the segment, which have to add up to the rows of a tensor.
  struct Sum {
    int input, rows;
    const Graph::Node* source;
  };

  std::string label;  // for messages: a module's path
  std::vector<Operand> inputs, outputs;
  int num_internals = 0;
  std::vector<Step> steps;
  std::vector<Sum> sums;
  std::shared_ptr<const BuiltOperation> operation;

  // Equal for segments that can share one operation.
  std::string signature(const Graph& graph) const;
};

// Facts of the whole graph that building a segment needs.
struct SegmentContext {
  const Graph& graph;
  const DeviceInfo& device;
  std::vector<int> roots;
  std::vector<bool> read;              // by tensor: some node reads it, or it is an output of the graph
  std::vector<size_t> last_read;       // by root: the last node that reads it; the number of nodes for an output
  std::map<int, QuantFormat> formats;  // by tensor: weights that are stored as integers
};

SegmentContext segment_context(const Graph& graph, const DeviceInfo& device);

// Lowers nodes [begin, end) and appends the segments: one, or more if they have more operands than an operation can
// take, none for views alone. Does not build the operations.
void lower_segments(const SegmentContext& context, size_t begin, size_t end, std::vector<Segment>& segments);

// Builds the operation. `graph_name` is its name in ATB's messages.
std::shared_ptr<const BuiltOperation> build_operation(const Segment& segment, const std::string& graph_name,
                                                      const Sizes& sizes, const Device& device);

}  // namespace atb_core::ascend
