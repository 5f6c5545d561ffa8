// SPDX-License-Identifier: Apache-2.0
// Gather, also from a weight in Linear layout (an embedding that is tied to the output matrix).
#include "cpu/engine/ops.h"
#include "cpu/kernels/movement.h"

namespace atb_core::cpu {
namespace {

void check_output(const Binding& b, int axis, int batch) {
  const TensorView &x = b.in(0), &indices = b.in(1), &out = b.out(0);
  std::vector<int64_t> expected(x.shape, x.shape + axis);
  expected.insert(expected.end(), indices.shape + batch, indices.shape + indices.rank);
  expected.insert(expected.end(), x.shape + axis + 1, x.shape + x.rank);
  b.require(shape_text(out) == shape_text(expected), "the output has shape ", shape_text(out), ", not ",
            shape_text(expected));
  b.require_dtype("output", out, x.dtype);
}

Bound bind_gather(const Binding& b) {
  const TensorView &x = b.in(0), &indices = b.in(1), &out = b.out(0);
  const int axis = b.axis(b.integer("axis"), x.rank);
  const int64_t batch_dims = b.integer("batch_dims");
  b.require(indices.dtype == DataType::i32 || indices.dtype == DataType::i64, "indices are ", name(indices.dtype),
            ", not int32 or int64");
  b.require(batch_dims >= 0 && batch_dims <= std::min(axis, indices.rank), "batch_dims ", batch_dims,
            " is larger than axis or indices");
  const int batch = static_cast<int>(batch_dims);
  for (int i = 0; i < batch; ++i) {
    b.require(x.shape[i] == indices.shape[i], "batch of ", shape_text(x), " and of ", shape_text(indices), " differ");
  }
  check_output(b, axis, batch);
  // Reads and writes the gathered rows, not the whole table.
  const double work = 2 * static_cast<double>(out.bytes());
  if (const PackedWeight* weight = b.packed(0)) {
    return {[isa = b.isa, weight = *weight, &indices, &out](const Worker& worker) {
              gather_packed_rows(isa, weight, indices.data, indices.dtype, indices.numel(), out.data, worker);
            },
            {},
            work};
  }
  GatherArgs args{.x = nullptr,
                  .indices = nullptr,
                  .out = nullptr,
                  .index_dtype = indices.dtype,
                  .batch = x.count(0, batch),
                  .outer = x.count(batch, axis),
                  .count = indices.count(batch, indices.rank),
                  .axis_size = x.dim(axis),
                  .row_bytes = x.count(axis + 1, x.rank) * static_cast<int64_t>(itemsize(x.dtype))};
  return {[args, &x, &indices, &out](const Worker& worker) {
            GatherArgs ready = args;
            ready.x = x.data;
            ready.indices = indices.data;
            ready.out = out.data;
            gather(ready, worker);
          },
          {},
          work};
}

// The packed layout can return rows of the matrix only.
WeightUse gather_use(const Attributes& attributes, int index) {
  const int64_t axis = std::get<int64_t>(attributes.find("axis")->second);
  return index == 0 && axis == 0 ? WeightUse::rows : WeightUse::plain;
}

}  // namespace

void add_gather_ops(CpuOps& ops) { ops["Gather"] = {.bind = bind_gather, .weight_use = gather_use}; }

}  // namespace atb_core::cpu
