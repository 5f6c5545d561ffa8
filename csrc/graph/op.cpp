// SPDX-License-Identifier: Apache-2.0
#include "graph/op.h"

#include <algorithm>
#include <map>
#include <mutex>
#include <shared_mutex>

#include "cpu/ops.h"

namespace atb_core {
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
    cpu::add_comm_ops(all);
    std::map<std::string_view, OpDef> result;
    for (OpDef& op : all) result.emplace(op.name, std::move(op));
    return result;
  }();
  return ops;
}

// What add_op() was given. Graphs point into it: nothing is ever removed.
struct Added {
  std::shared_mutex mutex;
  std::map<std::string, OpDef, std::less<>> ops;
};

Added& added() {
  static Added instance;
  return instance;
}

}  // namespace

const OpDef* find_op(std::string_view name) {
  if (const auto found = registry().find(name); found != registry().end()) return &found->second;
  const std::shared_lock lock(added().mutex);
  const auto found = added().ops.find(name);
  return found == added().ops.end() ? nullptr : &found->second;
}

void add_op(std::string name, OpDef def) {
  if (registry().contains(name)) fail("the engine has an op ", name, " of its own");
  const std::unique_lock lock(added().mutex);
  const auto [place, is_new] = added().ops.try_emplace(name, std::move(def));
  if (!is_new) fail("there is an op ", name, " already");
  place->second.name = place->first.c_str();
}

std::vector<std::string> op_names() {
  std::vector<std::string> names;
  for (const auto& [name, op] : registry()) names.emplace_back(name);
  const std::shared_lock lock(added().mutex);
  for (const auto& [name, op] : added().ops) names.push_back(name);
  std::sort(names.begin(), names.end());
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

}  // namespace atb_core
