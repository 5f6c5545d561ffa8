// SPDX-License-Identifier: Apache-2.0
#include "cpu/kernels/movement.h"

#include <algorithm>
#include <cstring>

namespace atb_core::cpu {
namespace {

// Below this many bytes a second thread costs more than it saves.
constexpr int64_t kGrainBytes = 4096;

// Writes the row-major byte strides of a contiguous tensor.
void strides_of(const TensorView& view, int64_t* strides) {
  int64_t stride = static_cast<int64_t>(itemsize(view.dtype));
  for (int i = view.rank - 1; i >= 0; --i) {
    strides[i] = stride;
    stride *= view.shape[i];
  }
}

CopyPlan empty_plan(const TensorView& view) {
  CopyPlan plan;
  plan.item = static_cast<int64_t>(itemsize(view.dtype));
  return plan;
}

CopyPlan box_plan(const TensorView& whole, std::span<const int64_t> start, const TensorView& part, bool reading) {
  CopyPlan plan = empty_plan(whole);
  int64_t whole_strides[kMaxRank], part_strides[kMaxRank];
  strides_of(whole, whole_strides);
  strides_of(part, part_strides);
  int64_t& offset = reading ? plan.from_offset : plan.to_offset;
  for (int i = 0; i < whole.rank; ++i) {
    offset += start[static_cast<size_t>(i)] * whole_strides[i];
    plan.add(part.shape[i], reading ? whole_strides[i] : part_strides[i], reading ? part_strides[i] : whole_strides[i]);
  }
  plan.simplify();
  return plan;
}

template <typename T>
void copy_elements(const std::byte* from, int64_t from_stride, std::byte* to, int64_t to_stride, int64_t count) {
  for (int64_t i = 0; i < count; ++i) {
    T value;
    std::memcpy(&value, from + i * from_stride, sizeof(T));
    std::memcpy(to + i * to_stride, &value, sizeof(T));
  }
}

void copy_run(const CopyPlan& plan, const std::byte* from, std::byte* to, int64_t count) {
  const int last = plan.rank - 1;
  const int64_t from_stride = plan.from_stride[last], to_stride = plan.to_stride[last];
  if (from_stride == plan.item && to_stride == plan.item) {
    std::memcpy(to, from, static_cast<size_t>(count * plan.item));
    return;
  }
  switch (plan.item) {
    case 1:
      return copy_elements<uint8_t>(from, from_stride, to, to_stride, count);
    case 2:
      return copy_elements<uint16_t>(from, from_stride, to, to_stride, count);
    case 4:
      return copy_elements<uint32_t>(from, from_stride, to, to_stride, count);
    default:
      return copy_elements<uint64_t>(from, from_stride, to, to_stride, count);
  }
}

}  // namespace

void CopyPlan::add(int64_t size, int64_t from, int64_t to) {
  extent[rank] = size;
  from_stride[rank] = from;
  to_stride[rank] = to;
  ++rank;
}

void CopyPlan::simplify() {
  int kept = 0;
  for (int i = 0; i < rank; ++i) {
    if (extent[i] == 1) continue;
    const bool joins = kept > 0 && from_stride[kept - 1] == extent[i] * from_stride[i] &&
                       to_stride[kept - 1] == extent[i] * to_stride[i];
    const int at = joins ? kept - 1 : kept++;
    extent[at] = joins ? extent[at] * extent[i] : extent[i];
    from_stride[at] = from_stride[i];
    to_stride[at] = to_stride[i];
  }
  rank = kept;
  if (rank == 0) add(1, item, item);
}

CopyPlan transpose_plan(const TensorView& from, std::span<const int64_t> perm) {
  CopyPlan plan = empty_plan(from);
  int64_t strides[kMaxRank];
  strides_of(from, strides);
  TensorView to{.data = nullptr, .dtype = from.dtype, .rank = from.rank};
  for (int i = 0; i < from.rank; ++i) to.shape[i] = from.shape[perm[static_cast<size_t>(i)]];
  int64_t to_strides[kMaxRank];
  strides_of(to, to_strides);
  for (int i = 0; i < from.rank; ++i) plan.add(to.shape[i], strides[perm[static_cast<size_t>(i)]], to_strides[i]);
  plan.simplify();
  return plan;
}

CopyPlan read_box_plan(const TensorView& whole, std::span<const int64_t> start, const TensorView& part) {
  return box_plan(whole, start, part, true);
}

CopyPlan write_box_plan(const TensorView& whole, std::span<const int64_t> start, const TensorView& part) {
  return box_plan(whole, start, part, false);
}

CopyPlan repeat_plan(const TensorView& from, std::span<const int64_t> multiples) {
  CopyPlan plan = empty_plan(from);
  int64_t strides[kMaxRank];
  strides_of(from, strides);
  const int extra = static_cast<int>(multiples.size()) - from.rank;
  int64_t to_stride = plan.item;
  for (int i = 0; i < from.rank; ++i) to_stride *= from.shape[i];
  for (int64_t multiple : multiples) to_stride *= multiple;
  for (int i = 0; i < static_cast<int>(multiples.size()); ++i) {
    const int64_t size = i < extra ? 1 : from.shape[i - extra];
    const int64_t multiple = multiples[static_cast<size_t>(i)];
    to_stride = multiple * size > 0 ? to_stride / (multiple * size) : to_stride;
    plan.add(multiple, 0, to_stride * size);
    plan.add(size, i < extra ? 0 : strides[i - extra], to_stride);
  }
  plan.simplify();
  return plan;
}

void copy(const CopyPlan& plan, const void* from, void* to, const Worker& worker) {
  const int last = plan.rank - 1;
  int64_t rows = 1;
  for (int i = 0; i < last; ++i) rows *= plan.extent[i];
  const int64_t inner = plan.extent[last];
  const auto [begin, end] = worker.share(rows * inner, std::max<int64_t>(1, kGrainBytes / plan.item));
  for (int64_t at = begin; at < end;) {
    const int64_t row = at / inner, first = at % inner, count = std::min(inner - first, end - at);
    int64_t source = plan.from_offset + first * plan.from_stride[last];
    int64_t target = plan.to_offset + first * plan.to_stride[last];
    int64_t rest = row;
    for (int i = last - 1; i >= 0; --i) {
      const int64_t index = rest % plan.extent[i];
      rest /= plan.extent[i];
      source += index * plan.from_stride[i];
      target += index * plan.to_stride[i];
    }
    copy_run(plan, static_cast<const std::byte*>(from) + source, static_cast<std::byte*>(to) + target, count);
    at += count;
  }
}

void gather(const GatherArgs& args, const Worker& worker) {
  const int64_t rows = args.batch * args.outer * args.count;
  const auto* x = static_cast<const std::byte*>(args.x);
  auto* out = static_cast<std::byte*>(args.out);
  const int64_t grain = std::max<int64_t>(1, kGrainBytes / std::max<int64_t>(1, args.row_bytes));
  const auto [begin, end] = worker.share(rows, grain);
  for (int64_t row = begin; row < end; ++row) {
    const int64_t i = row % args.count, block = row / args.count, batch = block / args.outer;
    const int64_t position = batch * args.count + i;
    const int64_t index = args.index_dtype == DataType::i32 ? static_cast<const int32_t*>(args.indices)[position]
                                                            : static_cast<const int64_t*>(args.indices)[position];
    if (index < 0 || index >= args.axis_size) {
      worker.error->report("index out of range", position, index, args.axis_size);
      return;
    }
    if (args.row_bytes == 0) continue;  // memory without bytes may be null, which memcpy does not take
    std::memcpy(out + row * args.row_bytes, x + (block * args.axis_size + index) * args.row_bytes,
                static_cast<size_t>(args.row_bytes));
  }
}

}  // namespace atb_core::cpu
