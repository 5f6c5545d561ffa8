// SPDX-License-Identifier: Apache-2.0
// Split, Concat, Slice, Transpose, Repeat, Reshape and Assign.
#include <algorithm>
#include <cstring>

#include "cpu/engine/ops.h"
#include "cpu/kernels/movement.h"

namespace atb_core::cpu {
namespace {

// Returns a kernel that copies one tensor to one tensor.
Kernel copy_kernel(const CopyPlan& plan, const TensorView& from, const TensorView& to) {
  return [plan, &from, &to](const Worker& worker) { copy(plan, from.data, to.data, worker); };
}

Kernel in_sequence(std::vector<Kernel> kernels) {
  return [kernels = std::move(kernels)](const Worker& worker) {
    for (const Kernel& kernel : kernels) kernel(worker);
  };
}

// Returns true if a box of the shape of `part` in `whole` is one contiguous range.
bool contiguous_box(const TensorView& whole, const TensorView& part) {
  int axis = 0;
  while (axis < whole.rank && part.shape[axis] == 1) ++axis;
  // All dimensions after the first one that is cut have to be whole.
  for (int i = axis + 1; i < whole.rank; ++i) {
    if (part.shape[i] != whole.shape[i]) return false;
  }
  return true;
}

size_t box_offset(const TensorView& whole, const std::vector<int64_t>& start) {
  int64_t offset = 0;
  for (int i = 0; i < whole.rank; ++i) offset = offset * whole.shape[i] + start[static_cast<size_t>(i)];
  return static_cast<size_t>(offset) * itemsize(whole.dtype);
}

void require_part(const Binding& b, const TensorView& part, TensorView whole, int axis, int64_t size) {
  whole.shape[axis] = size;
  b.require_same(whole, "a part", part);
}

// Checks shapes; returns the start of every part along the axis.
std::vector<std::vector<int64_t>> split_starts(const Binding& b) {
  const TensorView& x = b.in(0);
  const int axis = b.axis(b.integer("split_dim"), x.rank);
  std::vector<int64_t> sizes = b.list("split_sizes");
  if (sizes.empty()) {
    const int64_t num = b.integer("split_num");
    b.require(num > 0 && x.dim(axis) % num == 0, shape_text(x), " does not split into ", num, " equal parts");
    sizes.assign(static_cast<size_t>(num), x.dim(axis) / num);
  }
  b.require(static_cast<int>(sizes.size()) == b.num_outputs(), "there are ", sizes.size(), " sizes and ",
            b.num_outputs(), " outputs");
  std::vector<std::vector<int64_t>> starts;
  int64_t at = 0;
  for (size_t i = 0; i < sizes.size(); ++i) {
    b.require(sizes[i] >= 0 && sizes[i] <= x.dim(axis) - at, "the sizes do not fit into ", shape_text(x));
    require_part(b, b.out(static_cast<int>(i)), x, axis, sizes[i]);
    starts.emplace_back(static_cast<size_t>(x.rank), 0);
    starts.back()[static_cast<size_t>(axis)] = at;
    at += sizes[i];
  }
  b.require(at == x.dim(axis), "the sizes add up to ", at, ", not to ", x.dim(axis));
  return starts;
}

Bound bind_split(const Binding& b) {
  const auto starts = split_starts(b);
  std::vector<Kernel> kernels;
  for (size_t i = 0; i < starts.size(); ++i) {
    const TensorView& part = b.out(static_cast<int>(i));
    kernels.push_back(copy_kernel(read_box_plan(b.in(0), starts[i], part), b.in(0), part));
  }
  return {in_sequence(std::move(kernels))};
}

std::optional<std::vector<size_t>> view_split(const Binding& b) {
  std::vector<size_t> offsets;
  const auto starts = split_starts(b);
  for (size_t i = 0; i < starts.size(); ++i) {
    if (!contiguous_box(b.in(0), b.out(static_cast<int>(i)))) return std::nullopt;
    offsets.push_back(box_offset(b.in(0), starts[i]));
  }
  return offsets;
}

Bound bind_concat(const Binding& b) {
  const TensorView& out = b.out(0);
  const int axis = b.axis(b.integer("concat_dim"), out.rank);
  std::vector<int64_t> start(static_cast<size_t>(out.rank), 0);
  std::vector<Kernel> kernels;
  for (int i = 0; i < b.num_inputs(); ++i) {
    const TensorView& part = b.in(i);
    b.require(part.rank == out.rank, "input ", i, " has shape ", shape_text(part));
    require_part(b, part, out, axis, part.dim(axis));
    b.require(part.dim(axis) <= out.dim(axis) - start[static_cast<size_t>(axis)], "the inputs do not fit into ",
              shape_text(out));
    kernels.push_back(copy_kernel(write_box_plan(out, start, part), part, out));
    start[static_cast<size_t>(axis)] += part.dim(axis);
  }
  b.require(start[static_cast<size_t>(axis)] == out.dim(axis), "the inputs do not fill ", shape_text(out));
  return {in_sequence(std::move(kernels))};
}

// Checks shapes; returns the start of the slice.
std::vector<int64_t> slice_start(const Binding& b) {
  const TensorView &x = b.in(0), &out = b.out(0);
  const std::vector<int64_t>&offsets = b.list("offsets"), &sizes = b.list("size");
  b.require(offsets.size() == sizes.size() && static_cast<int>(offsets.size()) <= x.rank, "there are ", offsets.size(),
            " offsets and ", sizes.size(), " sizes for ", shape_text(x));
  b.require_dtype("output", out, x.dtype);
  b.require(out.rank == x.rank, "the output has shape ", shape_text(out));
  std::vector<int64_t> start(static_cast<size_t>(x.rank), 0);
  for (size_t i = 0; i < start.size(); ++i) {
    const int64_t extent = x.shape[i], offset = i < offsets.size() ? offsets[i] : 0;
    const int64_t size = i < sizes.size() ? sizes[i] : -1;
    start[i] = offset < 0 ? offset + extent : offset;
    b.require(start[i] >= 0 && start[i] <= extent, "offset ", offset, " is outside of dimension ", i, " of ",
              shape_text(x));
    const int64_t length = size == -1 ? extent - start[i] : size;
    b.require(length >= 0 && length <= extent - start[i], "size ", size, " from offset ", offset,
              " does not fit into dimension ", i, " of ", shape_text(x));
    b.require(out.shape[i] == length, "the output has shape ", shape_text(out), ", but its dimension ", i, " must be ",
              length);
  }
  return start;
}

Bound bind_slice(const Binding& b) {
  return {copy_kernel(read_box_plan(b.in(0), slice_start(b), b.out(0)), b.in(0), b.out(0))};
}

std::optional<std::vector<size_t>> view_slice(const Binding& b) {
  if (!contiguous_box(b.in(0), b.out(0))) return std::nullopt;
  return std::vector<size_t>{box_offset(b.in(0), slice_start(b))};
}

std::vector<int64_t> permutation(const Binding& b) {
  const TensorView &x = b.in(0), &out = b.out(0);
  std::vector<int64_t> perm;
  for (int64_t axis : b.list("perm")) perm.push_back(b.axis(axis, x.rank));
  std::vector<int64_t> sorted = perm;
  std::sort(sorted.begin(), sorted.end());
  bool fits = static_cast<int>(perm.size()) == x.rank && out.rank == x.rank;
  for (size_t i = 0; fits && i < perm.size(); ++i) {
    fits = sorted[i] == static_cast<int64_t>(i) && out.shape[i] == x.shape[perm[i]];
  }
  b.require(fits, "perm does not turn ", shape_text(x), " into ", shape_text(out));
  b.require_dtype("output", out, x.dtype);
  return perm;
}

Bound bind_transpose(const Binding& b) {
  return {copy_kernel(transpose_plan(b.in(0), permutation(b)), b.in(0), b.out(0))};
}

// Returns a view if only dimensions of size 1 change places.
std::optional<std::vector<size_t>> view_transpose(const Binding& b) {
  int64_t before = -1;
  for (int64_t axis : permutation(b)) {
    if (b.in(0).shape[axis] == 1) continue;
    if (axis < before) return std::nullopt;
    before = axis;
  }
  return whole_view(b);
}

Bound bind_repeat(const Binding& b) {
  const TensorView &x = b.in(0), &out = b.out(0);
  const std::vector<int64_t>& multiples = b.list("multiples");
  const int extra = static_cast<int>(multiples.size()) - x.rank;
  b.require(extra >= 0 && static_cast<int>(multiples.size()) == out.rank, multiples.size(), " multiples for ",
            shape_text(x), " -> ", shape_text(out));
  for (int i = 0; i < out.rank; ++i) {
    const int64_t multiple = multiples[static_cast<size_t>(i)], size = i < extra ? 1 : x.shape[i - extra];
    b.require(multiple > 0, "multiple ", multiple, " is not positive");
    b.require(size <= out.shape[i] && out.shape[i] % multiple == 0 && out.shape[i] / multiple == size,
              "the output has shape ", shape_text(out), ", but its dimension ", i, " must be ", multiple, " times ",
              size);
  }
  b.require_dtype("output", out, x.dtype);
  return {copy_kernel(repeat_plan(x, multiples), x, out)};
}

void check_same_elements(const Binding& b, const TensorView& from, const TensorView& to) {
  b.require_dtype("the target", to, from.dtype);
  b.require(from.numel() == to.numel(), shape_text(from), " and ", shape_text(to), " differ in elements");
}

Bound bind_reshape(const Binding& b) {
  check_same_elements(b, b.in(0), b.out(0));
  return {[&x = b.in(0), &out = b.out(0)](const Worker& worker) { copy_bytes(x, out, worker); }};
}

Bound bind_assign(const Binding& b) {
  const TensorView &value = b.in(0), &target = b.in(1);
  check_same_elements(b, value, target);
  b.require(shape_text(value) == shape_text(target), shape_text(value), " does not fit into ", shape_text(target));
  return {[&value, &target](const Worker& worker) {
    // A view of the target is already in place.
    if (value.data != target.data) copy_bytes(value, target, worker);
  }};
}

}  // namespace

void add_movement_ops(CpuOps& ops) {
  ops["Split"] = {.bind = bind_split, .view = view_split};
  ops["Concat"] = {.bind = bind_concat};
  ops["Slice"] = {.bind = bind_slice, .view = view_slice};
  ops["Transpose"] = {.bind = bind_transpose, .view = view_transpose};
  ops["Repeat"] = {.bind = bind_repeat};
  ops["Reshape"] = {.bind = bind_reshape, .view = whole_view};
  ops["Assign"] = {.bind = bind_assign};
}

}  // namespace atb_core::cpu
