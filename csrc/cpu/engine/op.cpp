// SPDX-License-Identifier: Apache-2.0
#include "cpu/engine/op.h"

#include <algorithm>
#include <cstring>
#include <map>
#include <mutex>
#include <shared_mutex>

#include "cpu/engine/ops.h"

namespace atb_core {
namespace {

// Kernels by op. Programs point into the map, so nothing is ever removed.
struct Registry {
  Registry() {
    cpu::add_linear_ops(ops);
    cpu::add_vector_ops(ops);
    cpu::add_attention_ops(ops);
    cpu::add_gather_ops(ops);
    cpu::add_movement_ops(ops);
    cpu::add_moe_ops(ops);
    cpu::add_lora_ops(ops);
    cpu::add_quant_ops(ops);
    cpu::add_sort_ops(ops);
    cpu::add_comm_ops(ops);
  }

  std::shared_mutex mutex;
  CpuOps ops;
};

Registry& registry() {
  static Registry instance;
  return instance;
}

}  // namespace

const CpuOp& cpu_op(std::string_view name) {
  Registry& all = registry();
  const std::shared_lock lock(all.mutex);
  const auto found = all.ops.find(name);
  if (found == all.ops.end()) fail("the cpu engine has no kernel for the op ", name);
  return found->second;
}

void add_custom_op(OpSignature signature, CpuOp op) {
  Registry& all = registry();
  // Held across both registries: a graph that finds the signature finds the kernel, too.
  const std::unique_lock lock(all.mutex);
  const std::string name = signature.name;
  add_op(std::move(signature));
  all.ops.emplace(name, std::move(op));
}

std::vector<std::string> cpu_op_names() {
  Registry& all = registry();
  const std::shared_lock lock(all.mutex);
  std::vector<std::string> names;
  for (const auto& [name, op] : all.ops) names.push_back(name);
  return names;
}

std::string shape_text(const TensorView& view) {
  return shape_text(std::span<const int64_t>(view.shape, static_cast<size_t>(view.rank)));
}

void Binding::require_shape(const char* what, const TensorView& view, std::initializer_list<int64_t> shape) const {
  const std::span<const int64_t> real(view.shape, static_cast<size_t>(view.rank));
  if (!std::equal(real.begin(), real.end(), shape.begin(), shape.end())) {
    fail(what, " has shape ", shape_text(view), ", not ", shape_text(std::span<const int64_t>(shape)));
  }
}

void Binding::require_dtype(const char* what, const TensorView& view, DataType dtype) const {
  if (view.dtype != dtype) fail(what, " is ", name(view.dtype), ", not ", name(dtype));
}

void Binding::require_float(const char* what, const TensorView& view) const {
  if (!is_float(view.dtype)) fail(what, " is ", name(view.dtype), "; a floating-point type is needed");
}

void Binding::require_shape_of(const TensorView& other, const char* what, const TensorView& view) const {
  const std::string has = shape_text(view), wanted = shape_text(other);
  if (has != wanted) fail(what, " has shape ", has, ", not ", wanted);
}

void Binding::require_same(const TensorView& other, const char* what, const TensorView& view) const {
  require_dtype(what, view, other.dtype);
  require_shape_of(other, what, view);
}

void Binding::require_inputs(int count) const {
  if (num_inputs() != count) fail("it has ", num_inputs(), " inputs, not ", count);
}

int Binding::axis(int64_t value, int rank) const {
  if (value < -rank || value >= rank) fail("axis ", value, " does not exist in a tensor of ", rank, " dimensions");
  return static_cast<int>(value < 0 ? value + rank : value);
}

namespace cpu {

std::optional<std::vector<size_t>> whole_view(const Binding&) { return std::vector<size_t>{0}; }

WeightUse matrix_use(const Attributes& attributes, int index) {
  if (index != 1) return WeightUse::plain;
  return std::get<bool>(attributes.find("transpose_b")->second) ? WeightUse::linear_nk : WeightUse::linear_kn;
}

void copy_bytes(const TensorView& from, const TensorView& to, const Worker& worker) {
  const auto [begin, end] = worker.share(static_cast<int64_t>(from.bytes()), 4096);
  if (end <= begin) return;
  std::memcpy(to.as<std::byte>() + begin, from.as<std::byte>() + begin, static_cast<size_t>(end - begin));
}

}  // namespace cpu
}  // namespace atb_core
