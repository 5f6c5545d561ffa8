// SPDX-License-Identifier: Apache-2.0
#include "graph/arguments.h"

#include <algorithm>

#include "atb_core/error.h"

namespace atb_core {
namespace {

bool is_external(const TensorSpec& tensor) {
  return tensor.kind == TensorKind::input || tensor.kind == TensorKind::output;
}

}  // namespace

Arguments::Arguments(const Graph& graph)
    : graph_(graph), given_(graph.tensors().size()), pointers_(graph.tensors().size()) {
  for (size_t i = 0; i < given_.size(); ++i) {
    if (is_external(graph.tensors()[i])) ids_.push_back(static_cast<int>(i));
  }
}

int Arguments::external(const std::string& name) const {
  for (int id : ids_) {
    if (graph_.tensor(id).name == name) return id;
  }
  fail("there is no input or output '", name, "'");
}

void Arguments::check(const std::vector<Argument>& arguments) const {
  for (const Argument& argument : arguments) {
    const size_t id = static_cast<size_t>(argument.tensor);
    if (argument.tensor < 0 || id >= given_.size() || !is_external(graph_.tensors()[id])) {
      fail("tensor ", argument.tensor, " is no input or output");
    }
    const TensorSpec& tensor = graph_.tensors()[id];
    const size_t alignment = itemsize(tensor.dtype);
    if (reinterpret_cast<uintptr_t>(argument.data) % alignment != 0) {
      fail("the memory of '", tensor.name, "' is not aligned to its element size, ", alignment);
    }
    int64_t elements = 1;
    for (int64_t size : argument.shape) {
      if (size < 0 || __builtin_mul_overflow(elements, size, &elements)) {
        fail("'", tensor.name, "' has the impossible shape ", shape_text(argument.shape));
      }
    }
    if (elements > 0 && argument.data == nullptr) fail("'", tensor.name, "' has no data");
  }
}

bool Arguments::set(const std::vector<Argument>& arguments) {
  check(arguments);
  bool changed = false;
  for (const Argument& argument : arguments) {
    const size_t id = static_cast<size_t>(argument.tensor);
    const void* host = argument.on_device ? argument.host : argument.data;
    Given given{argument.data, argument.shape, true, argument.on_device, host};
    if (given == given_[id]) continue;
    changed = true;
    given_[id] = std::move(given);
    pointers_[id] = argument.data;
  }
  return changed;
}

std::vector<int64_t> Arguments::resolve_sizes(bool with_outputs) const {
  std::vector<int64_t> sizes(graph_.dims().size(), -1);
  // Repeats while sizes depend on another tensor and the last round resolved at least one dimension.
  for (auto known = std::ptrdiff_t{-1};;) {
    bool complete = true;
    for (int id : ids_) {
      const TensorSpec& tensor = graph_.tensor(id);
      const Given& given = given_[static_cast<size_t>(id)];
      if (tensor.kind == TensorKind::output && !with_outputs) continue;
      if (!given.set) fail(tensor.kind == TensorKind::input ? "input" : "output", " '", tensor.name, "' is missing");
      complete = match_shape(tensor.name, tensor.shape, given.shape, graph_.dims(), sizes) && complete;
    }
    const auto open = std::count(sizes.begin(), sizes.end(), -1);
    if (complete && open == 0) return sizes;
    if (complete || open == known) break;
    known = open;
  }
  const auto open = std::find(sizes.begin(), sizes.end(), -1);
  fail("no input or output tells the size of dimension '", graph_.dims()[static_cast<size_t>(open - sizes.begin())],
       "'");
}

std::vector<std::vector<int64_t>> Arguments::output_shapes(const std::vector<Argument>& arguments) const {
  Arguments asked = *this;
  asked.set(arguments);
  const std::vector<int64_t> sizes = asked.resolve_sizes(false);
  std::vector<std::vector<int64_t>> shapes;
  for (const TensorSpec& tensor : graph_.tensors()) {
    if (tensor.kind != TensorKind::output) continue;
    std::vector<int64_t>& shape = shapes.emplace_back();
    for (const DimExpr& size : tensor.shape) shape.push_back(size.evaluate(sizes));
  }
  return shapes;
}

void Arguments::check_overlap() const {
  struct Range {
    const std::byte *begin, *end;
    bool written;
    int id;
  };
  std::vector<Range> ranges;
  ranges.reserve(ids_.size());
  for (int id : ids_) {
    const Given& given = given_[static_cast<size_t>(id)];
    size_t bytes = itemsize(graph_.tensor(id).dtype);
    for (int64_t size : given.shape) bytes *= static_cast<size_t>(size);
    if (bytes == 0) continue;
    const auto* begin = static_cast<const std::byte*>(given.data);
    ranges.push_back({begin, begin + bytes, graph_.tensor(id).kind == TensorKind::output || graph_.written(id), id});
  }
  std::sort(ranges.begin(), ranges.end(), [](const Range& a, const Range& b) { return a.begin < b.begin; });
  // Ranges are sorted by begin. Keeps the range with the largest end so far, and the written range with the largest
  // end: a range that begins before such an end overlaps.
  const Range *furthest = nullptr, *written = nullptr;
  for (const Range& range : ranges) {
    const Range* other = range.written ? furthest : written;
    if (other != nullptr && range.begin < other->end) {
      fail("'", graph_.tensor(other->id).name, "' and '", graph_.tensor(range.id).name,
           "' share memory, and at least one of them is written");
    }
    if (furthest == nullptr || range.end > furthest->end) furthest = &range;
    if (range.written && (written == nullptr || range.end > written->end)) written = &range;
  }
}

}  // namespace atb_core
