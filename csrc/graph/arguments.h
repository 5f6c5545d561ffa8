// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <vector>

#include "graph/graph.h"

namespace atb_core {

// An input or output and its memory.
struct Argument {
  int tensor;
  void* data;
  std::vector<int64_t> shape;
  bool on_device = false;      // `data` is an address of a device
  const void* host = nullptr;  // the same values on the host, for a tensor of a device that the host reads, too
};

// Holds the real tensors that are bound to a graph's inputs and outputs, and the sizes that follow from their shapes.
class Arguments {
 public:
  // The graph has to outlive this object.
  explicit Arguments(const Graph& graph);

  // Returns the tensor's number. Throws Error if no input or output has the name.
  int external(const std::string& name) const;
  // Returns the numbers of all inputs and outputs.
  const std::vector<int>& externals() const { return ids_; }

  // Sets the memory of inputs or outputs until it is set again. Throws Error and sets nothing if one of them does not
  // fit. Returns true if anything is other than before.
  bool set(const std::vector<Argument>& arguments);

  // Returns an address for each tensor; null if it is not set.
  const std::vector<void*>& pointers() const { return pointers_; }
  bool on_device(int tensor) const { return given_[static_cast<size_t>(tensor)].on_device; }
  // Returns an address where the host can read an input; null if there is none.
  const void* host(int tensor) const { return given_[static_cast<size_t>(tensor)].host; }

  // Returns the size of each dimension of the graph. Throws Error if a tensor is missing or sizes contradict each
  // other.
  std::vector<int64_t> resolve_sizes(bool with_outputs) const;
  // Returns the shapes that the outputs must have for these inputs and those set before, in the order of the tensors.
  // Sets nothing.
  std::vector<std::vector<int64_t>> output_shapes(const std::vector<Argument>& arguments) const;
  // Throws Error if two tensors share memory that is written.
  void check_overlap() const;

 private:
  void check(const std::vector<Argument>& arguments) const;

  struct Given {
    void* data = nullptr;
    std::vector<int64_t> shape;
    bool set = false;
    bool on_device = false;
    const void* host = nullptr;

    bool operator==(const Given&) const = default;
  };

  const Graph& graph_;
  std::vector<Given> given_;  // by tensor
  std::vector<void*> pointers_;
  std::vector<int> ids_;
};

}  // namespace atb_core
