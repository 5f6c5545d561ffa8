// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "atb_core/types.h"
#include "cpu/kernels/kernels.h"
#include "cpu/worker.h"

namespace atb_core::cpu {

// Sorting along the last dimension. Equal values (0 and -0 are equal) keep their order; NaN counts as greater
// than everything. Any dtype, at most 2^31 - 1 elements a row.

// The `values.dim(-1)` largest of each row, descending, and where they were (i32).
struct TopArgs {
  TensorView x, values, indices;
};
ScratchSize top_scratch(const TopArgs& args);
void top(const TopArgs& args, const Worker& worker);

// Finds the `count` largest of `size` elements of one row. `order` has room for `size` indices.
void top_of_row(DataType dtype, const void* x, int64_t size, int64_t count, void* values, int32_t* indices,
                int32_t* order);

// The i32 indices that sort each row ascending.
struct ArgsortArgs {
  TensorView x, indices;
};
void argsort(const ArgsortArgs& args, const Worker& worker);

}  // namespace atb_core::cpu
