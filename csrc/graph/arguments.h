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
  bool on_device = false;      // of an engine whose memory is not the host's
  const void* host = nullptr;  // the same values on the host, for what lies on the device and is also read here
};

// The real tensors that are bound to a graph's inputs and outputs, and what follows from their shapes.
class Arguments {
 public:
  // The graph has to outlive this object.
  explicit Arguments(const Graph& graph);

  // The tensor's number; throws Error when no input or output has the name.
  int external(const std::string& name) const;
  // The numbers of all inputs and outputs.
  const std::vector<int>& externals() const { return ids_; }

  // Gives inputs or outputs their memory, until given again; all of them, or none where it throws Error.
  void set(const std::vector<Argument>& arguments);

  // By tensor; null for what is not set.
  const std::vector<void*>& pointers() const { return pointers_; }
  bool on_device(int tensor) const { return given_[static_cast<size_t>(tensor)].on_device; }
  // Where the host can read an input; null when it cannot.
  const void* host(int tensor) const { return given_[static_cast<size_t>(tensor)].host; }

  // The size of each dimension of the graph. Throws Error for what is missing and for sizes that contradict each other.
  std::vector<int64_t> resolve_sizes(bool with_outputs) const;
  // The shapes that the outputs must have for these inputs and what is set, in the order of the tensors. Sets nothing.
  std::vector<std::vector<int64_t>> output_shapes(const std::vector<Argument>& arguments) const;
  // Throws Error when two of them share memory that is written.
  void check_overlap() const;

 private:
  void check(const std::vector<Argument>& arguments) const;

  struct Given {
    void* data = nullptr;
    std::vector<int64_t> shape;
    bool set = false;
    bool on_device = false;
    const void* host = nullptr;
  };

  const Graph& graph_;
  std::vector<Given> given_;  // by tensor
  std::vector<void*> pointers_;
  std::vector<int> ids_;
};

}  // namespace atb_core
