// SPDX-License-Identifier: Apache-2.0
// Gather, Concat, Split, Slice, Transpose and Repeat.
#include <algorithm>

#include "atb/lower_rules.h"

namespace atb_core::ascend {
namespace {

using enum DataType;

// The outputs that ATB's Split can have.
constexpr int kMostParts = 3;
// The dimensions that the kernel of Repeat supports, with one more for each that is repeated.

bool split_takes(const Lowering& l) {
  const int parts = l.num_outputs();
  const DataType type = l.input(0).dtype;
  return (parts == 2 && one_of(type, {f16, bf16, i64})) || (parts == kMostParts && one_of(type, {f16, bf16}));
}

// Returns the sizes of the parts; all are equal if none are given.
std::vector<int64_t> part_sizes(const Lowering& l, int axis) {
  const std::vector<int64_t>& given = l.list("split_sizes");
  const size_t parts = static_cast<size_t>(l.num_outputs());
  l.require(given.empty() || given.size() == parts, given.size(), " sizes are given for ", parts, " parts");
  if (!given.empty()) return given;
  const auto whole = l.size(0, axis);
  l.require(whole.has_value(), "the size of dimension ", axis, " is a symbol: give split_sizes");
  l.require(*whole % static_cast<int64_t>(parts) == 0, *whole, " does not split into ", parts, " equal parts");
  return std::vector<int64_t>(parts, *whole / static_cast<int64_t>(parts));
}

void add_split(Lowering& l, int axis, const std::vector<int64_t>& sizes) {
  ::atb::infer::SplitParam param{};
  param.splitDim = axis;
  param.splitNum = l.num_outputs();
  std::vector<int> outputs;
  for (int i = 0; i < l.num_outputs(); ++i) {
    param.splitSizes.push_back(static_cast<int32_t>(sizes[static_cast<size_t>(i)]));
    outputs.push_back(l.out(i));
  }
  l.add("Split", param, {l.in(0)}, outputs);
}

// Parts that no node reads are not cut.
void add_slices(Lowering& l, int axis, const std::vector<int64_t>& sizes) {
  const DataType type = l.input(0).dtype;
  l.require(slice_takes(type), "ATB splits no ", name(type), " into ", sizes.size(), " parts: cast x to int32");
  std::vector<int64_t> offsets(static_cast<size_t>(l.rank(0)), 0), box(offsets.size(), -1);
  for (int i = 0; i < l.num_outputs(); ++i) {
    const int64_t size = sizes[static_cast<size_t>(i)];
    box[static_cast<size_t>(axis)] = size;
    if (l.output_used(i)) add_slice(l, offsets, box, l.out(i));
    offsets[static_cast<size_t>(axis)] += size;
  }
}

// Returns an offset from the start for one from the end.
int64_t offset_of(const Lowering& l, int64_t offset, int axis) {
  if (offset >= 0) return offset;
  const auto extent = l.size(0, axis);
  l.require(extent.has_value(), "offset ", offset, " counts from the end of dimension ", axis, ", which is a symbol");
  l.require(*extent + offset >= 0, "offset ", offset, " is outside of dimension ", axis);
  return *extent + offset;
}

}  // namespace

void lower_gather(Lowering& l) {
  l.require(one_of(l.input(1).dtype, {i32, i64}), "the indices are ", name(l.input(1).dtype), ", not int32 or int64");
  require_result_type(l);
  ::atb::infer::GatherParam param{};
  param.axis = axis_of(l, l.integer("axis"), l.rank(0));
  param.batchDims = l.integer("batch_dims");
  l.require(param.batchDims >= 0 && param.batchDims <= std::min<int64_t>(param.axis, l.rank(1)), "batch_dims is ",
            param.batchDims, ", which is larger than axis or the indices");
  l.add("Gather", param, {l.in(0), l.in(1)}, {l.out(0)});
}

// ATB concatenates two tensors; more are concatenated one after another.
void lower_concat(Lowering& l) {
  l.require(l.num_inputs() >= 2, "one tensor alone cannot be joined");
  require_result_type(l);
  ::atb::infer::ConcatParam param{};
  param.concatDim = axis_of(l, l.integer("concat_dim"), l.rank(0));
  int joined = l.in(0);
  for (int i = 1; i < l.num_inputs(); ++i) {
    require_type(l, i, "an input", l.input(0).dtype);
    const int next = i + 1 == l.num_inputs() ? l.out(0) : l.internal();
    l.add("Concat", param, {joined, l.in(i)}, {next});
    joined = next;
  }
}

void lower_split(Lowering& l) {
  const int axis = axis_of(l, l.integer("split_dim"), l.rank(0));
  for (int i = 0; i < l.num_outputs(); ++i) require_result_type(l, i);
  const std::vector<int64_t> sizes = part_sizes(l, axis);
  if (split_takes(l)) return add_split(l, axis, sizes);
  add_slices(l, axis, sizes);
}

void lower_slice(Lowering& l) {
  std::vector<int64_t> offsets = l.list("offsets"), sizes = l.list("size");
  const size_t rank = static_cast<size_t>(l.rank(0));
  l.require(offsets.size() == sizes.size() && offsets.size() <= rank, offsets.size(), " offsets and ", sizes.size(),
            " sizes are given for ", rank, " dimensions");
  require_result_type(l);
  // Dimensions without an offset stay whole.
  offsets.resize(rank, 0);
  sizes.resize(rank, -1);
  for (size_t i = 0; i < rank; ++i) offsets[i] = offset_of(l, offsets[i], static_cast<int>(i));
  add_slice(l, offsets, sizes, l.out(0));
}

void lower_transpose(Lowering& l) {
  const std::vector<int64_t>& perm = l.list("perm");
  l.require(static_cast<int>(perm.size()) == l.rank(0), perm.size(), " dimensions are named and x has ", l.rank(0));
  require_result_type(l);
  ::atb::infer::TransposeParam param{};
  for (int64_t axis : perm) param.perm.push_back(axis_of(l, axis, l.rank(0)));
  l.add("Transpose", param, {l.in(0)}, {l.out(0)});
}

void lower_repeat(Lowering& l) {
  const std::vector<int64_t>& multiples = l.list("multiples");
  const int count = static_cast<int>(multiples.size()), rank = l.rank(0);
  l.require(count >= rank && count <= kMaxRank, count, " multiples are given for ", rank, " dimensions");
  require_result_type(l);
  ::atb::infer::RepeatParam param{};
  int widened = 0;
  for (int i = 0; i < count; ++i) {
    const int64_t multiple = multiples[static_cast<size_t>(i)];
    l.require(multiple > 0, "multiple ", multiple, " is not positive");
    param.multiples.push_back(multiple);
    const int axis = i - (count - rank);
    const bool single = axis < 0 || l.size(0, axis) == std::optional<int64_t>(1);
    if (multiple > 1 && !single) ++widened;
  }
  l.require(rank + widened <= kMaxRank, "x has ", rank, " dimensions, of which ", widened, " grow; together ATB takes ",
            kMaxRank, ": repeat them one after another");
  l.add("Repeat", param, {l.in(0)}, {l.out(0)});
}

}  // namespace atb_core::ascend
