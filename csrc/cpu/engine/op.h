// SPDX-License-Identifier: Apache-2.0
// The CPU engine's part of an op: binding a node to its kernel.
#pragma once

#include <functional>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "atb_core/error.h"
#include "cpu/kernels/kernels.h"
#include "cpu/kernels/linear.h"
#include "graph/attributes.h"
#include "graph/graph.h"
#include "graph/op.h"

namespace atb_core {

// The use of a weight by a node, which decides its layout: `linear_nk` and `linear_kn` as a matrix of a Linear (stored
// [n, k] or [k, n]) or the matrices of a GroupedMatmul, `rows` by single rows, `plain` as any tensor.
enum class WeightUse { plain, rows, linear_nk, linear_kn };

// Runs a bound node; called on every thread of the pool.
using Kernel = std::function<void(const cpu::Worker&)>;

struct Bound {
  Kernel run;
  cpu::ScratchSize scratch = {};
  // The node's duration, in bytes moved at the speed of memory; by default all inputs and outputs.
  double work = -1;
};

// A node and the concrete shapes of its tensors. The views do not move during the life of the plan; their `data` is
// valid only while the plan runs.
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
  // Returns the packed form of an input that is a weight in Linear layout, else null.
  const cpu::PackedWeight* packed(int input) const {
    return packed_[static_cast<size_t>(node_.inputs[static_cast<size_t>(input)])];
  }

  bool flag(std::string_view name) const { return get<bool>(name); }
  int64_t integer(std::string_view name) const { return get<int64_t>(name); }
  float number(std::string_view name) const { return static_cast<float>(get<double>(name)); }
  const std::string& text(std::string_view name) const { return get<std::string>(name); }
  const std::vector<int64_t>& list(std::string_view name) const { return get<std::vector<int64_t>>(name); }
  const Attributes& attributes() const { return node_.attributes; }

  // Checks. Each throws an Error, to which the plan adds op and label.
  template <typename... Parts>
  void require(bool condition, const Parts&... parts) const {
    if (!condition) fail(parts...);
  }
  void require_shape(const char* what, const TensorView& view, std::initializer_list<int64_t> shape) const;
  void require_dtype(const char* what, const TensorView& view, DataType dtype) const;
  void require_float(const char* what, const TensorView& view) const;
  // Requires the shape of another tensor, or its shape and type.
  void require_shape_of(const TensorView& other, const char* what, const TensorView& view) const;
  void require_same(const TensorView& other, const char* what, const TensorView& view) const;
  void require_inputs(int count) const;
  // Returns the axis in the range 0..rank-1.
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

// The CPU engine's part of an op; graph/op.h has the signature.
struct CpuOp {
  // Checks shapes and types completely and returns the code to run: afterwards only data can be wrong.
  std::function<Bound(const Binding&)> bind = nullptr;
  // Returns byte offsets of the outputs in input 0 if these shapes allow the op without moving data. Null if they never
  // do.
  std::optional<std::vector<size_t>> (*view)(const Binding&) = nullptr;
  // Returns the layout that a node needs for input `index` if that is a weight.
  WeightUse (*weight_use)(const Attributes&, int index) = nullptr;
};

// Returns the CPU engine's part of an op. Throws Error if there is none. The reference stays valid.
const CpuOp& cpu_op(std::string_view name);

// Adds a custom op, signature and kernel, for the rest of the process. Throws Error if the name is taken. Thread-safe.
void add_custom_op(OpSignature signature, CpuOp op);

// Returns the names of the ops that the CPU engine runs, sorted.
std::vector<std::string> cpu_op_names();

std::string shape_text(const TensorView& view);

}  // namespace atb_core
