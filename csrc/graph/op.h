// SPDX-License-Identifier: Apache-2.0
// What the engine knows of an op, and what an op sees when it is bound to concrete shapes.
#pragma once

#include <functional>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "atb_core/error.h"
#include "cpu/kernels.h"
#include "cpu/linear.h"
#include "graph/attributes.h"
#include "graph/graph.h"

namespace atb_core {

inline constexpr int kAnyNumber = 1 << 20;

struct Arity {
  int least, most;
};

// How a node uses a weight, which decides the layout it is kept in: `linear_nk` and `linear_kn` as a matrix
// of a Linear (stored [n, k] or [k, n]) or the matrices of a GroupedMatmul, `rows` by its rows only, `plain` as any
// tensor.
enum class WeightUse { plain, rows, linear_nk, linear_kn };

// A node ready to run: called on every thread of the pool.
using Kernel = std::function<void(const cpu::Worker&)>;

struct Bound {
  Kernel run;
  cpu::ScratchSize scratch = {};
  // How long it takes, in bytes moved at the speed of memory; by default all inputs and outputs.
  double work = -1;
};

// One node and the concrete shapes of its tensors. The views stay where they are for the life of the plan;
// their `data` is only valid while the plan runs.
class Binding {
 public:
  Binding(const Graph::Node& node, std::span<TensorView> views, std::span<const cpu::PackedWeight* const> packed,
          cpu::Isa isa, int threads)
      : isa(isa), threads(threads), kernels(cpu::kernel_table(isa)), node_(node), views_(views), packed_(packed) {}

  const cpu::Isa isa;
  const int threads;
  const cpu::KernelTable& kernels;

  int num_inputs() const { return static_cast<int>(node_.inputs.size()); }
  int num_outputs() const { return static_cast<int>(node_.outputs.size()); }
  const TensorView& in(int index) const {
    return views_[static_cast<size_t>(node_.inputs[static_cast<size_t>(index)])];
  }
  const TensorView& out(int index) const {
    return views_[static_cast<size_t>(node_.outputs[static_cast<size_t>(index)])];
  }
  // The packed form of an input that is a weight kept in Linear layout, else null.
  const cpu::PackedWeight* packed(int input) const {
    return packed_[static_cast<size_t>(node_.inputs[static_cast<size_t>(input)])];
  }

  bool flag(std::string_view name) const { return get<bool>(name); }
  int64_t integer(std::string_view name) const { return get<int64_t>(name); }
  float number(std::string_view name) const { return static_cast<float>(get<double>(name)); }
  const std::string& text(std::string_view name) const { return get<std::string>(name); }
  const std::vector<int64_t>& list(std::string_view name) const { return get<std::vector<int64_t>>(name); }
  const Attributes& attributes() const { return node_.attributes; }

  // Checks, each throwing an Error that the plan completes with op and label.
  template <typename... Parts>
  void require(bool condition, const Parts&... parts) const {
    if (!condition) fail(parts...);
  }
  void require_shape(const char* what, const TensorView& view, std::initializer_list<int64_t> shape) const;
  void require_dtype(const char* what, const TensorView& view, DataType dtype) const;
  void require_inputs(int count) const;
  // The axis as 0..rank-1.
  int axis(int64_t value, int rank) const;

 private:
  template <typename T>
  const T& get(std::string_view name) const {
    return std::get<T>(node_.attributes.find(name)->second);
  }

  const Graph::Node& node_;
  std::span<TensorView> views_;
  std::span<const cpu::PackedWeight* const> packed_;
};

struct OpDef {
  const char* name;
  Arity inputs, outputs;
  std::vector<AttributeSpec> attributes;
  // Checks shapes and types completely, then returns the code to run: afterwards only data can be wrong.
  std::function<Bound(const Binding&)> bind;
  // Inputs that the node writes.
  std::vector<int> writes = {};
  // For ops that may be done without moving data: byte offsets of the outputs in input 0, where these shapes allow.
  std::optional<std::vector<size_t>> (*view)(const Binding&) = nullptr;
  // The output is the input's memory by definition: who writes one writes the other.
  bool always_view = false;
  // What the node makes of input `index` when that is a weight.
  WeightUse (*weight_use)(const Attributes&, int index) = nullptr;
  // Takes whatever attributes a node has, `attributes` beside.
  bool any_attributes = false;
};

// Null when there is no such op.
const OpDef* find_op(std::string_view name);

// Adds an op for the rest of the process, beside those that the engine is built with. Throws Error when there is one
// of this name. May be called at any time and from any thread.
void add_op(std::string name, OpDef def);

// The names of all ops, sorted.
std::vector<std::string> op_names();

std::string shape_text(const TensorView& view);

}  // namespace atb_core
