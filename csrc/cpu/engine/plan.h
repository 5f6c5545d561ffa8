// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <span>
#include <vector>

#include "cpu/engine/op.h"
#include "cpu/engine/runtime.h"
#include "cpu/engine/thread_choice.h"
#include "cpu/engine/weight_store.h"
#include "graph/graph.h"

namespace atb_core {

// A graph for one set of sizes: concrete shapes, memory offsets, and bound kernels.
class Plan {
 public:
  struct Step {
    int node;  // -1: the copy into an output that shares memory with another tensor
    int tensor;
    Kernel run;
    bool small;  // one thread does it faster than two
  };
  // Steps [begin, end) between two barriers: one step for all threads, or any number of small ones for one thread.
  struct Phase {
    size_t begin, end;
    bool small;
  };

  // Throws Error naming op and label if a node cannot run with these sizes. `sizes` has a value for each dimension of
  // the graph. The weights must be set.
  Plan(const Graph& graph, std::vector<int64_t> sizes, const WeightStore& store, const Runtime& runtime);
  Plan(const Plan&) = delete;
  Plan& operator=(const Plan&) = delete;

  const std::vector<int64_t>& sizes() const { return sizes_; }
  const std::vector<Step>& steps() const { return steps_; }
  const std::vector<Phase>& phases() const { return phases_; }
  size_t arena_bytes() const { return arena_bytes_; }
  const cpu::ScratchSize& scratch() const { return scratch_; }
  std::span<const int64_t> shape(int tensor) const;

  // Points all views to the arena and to the memory of inputs and outputs: `externals[t]` for tensor t. Copies inputs
  // of integers into the arena: they are indices and lengths, which the caller must not change after they are checked.
  void attach(std::byte* arena, std::span<void* const> externals);

  ThreadChoice& thread_choice() { return thread_choice_; }

 private:
  // The place of a tensor: an offset in the memory of `root`, a tensor with memory of its own. `callers`: in the memory
  // that the caller gave for `root`, although the plan keeps that tensor in the arena.
  struct Location {
    int root;
    size_t offset;
    bool callers = false;
  };

  void set_shapes(const Graph& graph);
  void set_weights(const Graph& graph, const WeightStore& store);
  void bind(const Graph& graph, const Runtime& runtime);
  void place_outputs(const Graph& graph, double small_work);
  void add_copy(int output, double small_work);
  bool in_arena(const Graph& graph, int root) const;
  void place_arena(const Graph& graph);
  void make_phases();

  std::vector<int64_t> sizes_;
  std::vector<TensorView> views_;  // never resized: kernels hold pointers into it
  std::vector<Location> locations_;
  std::vector<cpu::PackedWeight> matrices_;
  std::vector<const cpu::PackedWeight*> packed_;
  std::vector<Step> steps_;
  std::vector<Phase> phases_;
  size_t arena_bytes_ = 0;
  cpu::ScratchSize scratch_;

  // A change that attach() makes: view `tensor` is at external[source] + offset, or in the arena.
  struct Patch {
    int tensor, source;
    size_t offset;
  };
  std::vector<Patch> external_patches_, arena_patches_;
  std::vector<Patch> copied_inputs_;  // from external[source] into the arena
  std::byte* attached_arena_ = nullptr;
  ThreadChoice thread_choice_;
};

}  // namespace atb_core
