// SPDX-License-Identifier: Apache-2.0
#include "graph/op.h"

#include <algorithm>
#include <map>

#include "cpu/ops.h"

namespace atb {
namespace {

const std::map<std::string_view, OpDef>& registry() {
  static const std::map<std::string_view, OpDef> ops = [] {
    std::vector<OpDef> all;
    cpu::add_linear_ops(all);
    cpu::add_vector_ops(all);
    cpu::add_attention_ops(all);
    cpu::add_gather_ops(all);
    cpu::add_movement_ops(all);
    cpu::add_moe_ops(all);
    cpu::add_sort_ops(all);
    std::map<std::string_view, OpDef> result;
    for (OpDef& op : all) result.emplace(op.name, std::move(op));
    return result;
  }();
  return ops;
}

}  // namespace

const OpDef* find_op(std::string_view name) {
  const auto found = registry().find(name);
  return found == registry().end() ? nullptr : &found->second;
}

std::vector<std::string> op_names() {
  std::vector<std::string> names;
  for (const auto& [name, op] : registry()) names.emplace_back(name);
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

void Binding::require_inputs(int count) const {
  if (num_inputs() != count) fail("it has ", num_inputs(), " inputs, not ", count);
}

int Binding::axis(int64_t value, int rank) const {
  if (value < -rank || value >= rank) fail("axis ", value, " does not exist in a tensor of ", rank, " dimensions");
  return static_cast<int>(value < 0 ? value + rank : value);
}

}  // namespace atb
