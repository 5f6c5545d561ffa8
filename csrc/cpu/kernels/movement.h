// SPDX-License-Identifier: Apache-2.0
// Kernels that move bytes without looking at them.
#pragma once

#include <span>

#include "atb_core/types.h"
#include "cpu/worker.h"

namespace atb_core::cpu {

// A copy of a box of elements between two strided layouts: split, concat, slice, transpose and repeat are all
// this. Strides and offsets are in bytes; a source stride of 0 repeats.
struct CopyPlan {
  // A tiled dimension takes two entries.
  static constexpr int kMaxDims = 2 * kMaxRank;
  int rank = 0;
  int64_t item = 1;  // bytes of one element
  int64_t extent[kMaxDims] = {};
  int64_t from_stride[kMaxDims] = {};
  int64_t to_stride[kMaxDims] = {};
  int64_t from_offset = 0, to_offset = 0;

  void add(int64_t size, int64_t from, int64_t to);
  // Joins neighbouring dimensions that are one run in both layouts and drops those of size 1.
  void simplify();
};

// `from` in the order `perm`, contiguous.
CopyPlan transpose_plan(const TensorView& from, std::span<const int64_t> perm);
// The box of the shape of `part` at `start` (one offset a dimension) of the contiguous tensor `whole`: read from
// it into a contiguous part, or written from a contiguous part into it.
CopyPlan read_box_plan(const TensorView& whole, std::span<const int64_t> start, const TensorView& part);
CopyPlan write_box_plan(const TensorView& whole, std::span<const int64_t> start, const TensorView& part);
// `from` repeated multiples[i] times along dimension i; there may be more multiples than dimensions.
CopyPlan repeat_plan(const TensorView& from, std::span<const int64_t> multiples);

void copy(const CopyPlan& plan, const void* from, void* to, const Worker& worker);

// out[b, o, i, :] = x[b, o, indices[b, i], :]; indices are i32 or i64. An index outside of [0, axis_size) is
// reported and nothing is read for it.
struct GatherArgs {
  const void* x;
  const void* indices;
  void* out;
  DataType index_dtype;
  int64_t batch, outer, count, axis_size, row_bytes;
};
void gather(const GatherArgs& args, const Worker& worker);

}  // namespace atb_core::cpu
