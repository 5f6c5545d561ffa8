// SPDX-License-Identifier: Apache-2.0
// A sum takes four registers, a word of weights eight, an activation two: 2 rows.
#define ATB_CPU_LEVEL neon
#include "cpu/kernels/vec_neon.h"
// The vector types come first.
#include "cpu/kernels/ints_neon.h"
#include "cpu/kernels/linear_quant-inl.h"

namespace atb_core::cpu {
namespace neon {
namespace {

constexpr int kQuantRows = 2;
int quant_blocks(int rows) { return rows == 1 ? 2 : 1; }

template <QuantLayout L>
void multiply_quant(const TileJob& job) {
  if (job.blocks == 2) return multiply_quant_tile<L, 1, 2>(job);
  constexpr void (*kTiles[])(const TileJob&) = {multiply_quant_tile<L, 1, 1>, multiply_quant_tile<L, 2, 1>};
  kTiles[job.rows - 1](job);
}

}  // namespace
}  // namespace neon
}  // namespace atb_core::cpu

#include "cpu/kernels/linear_quant_table-inl.h"

namespace atb_core::cpu {

const LinearKernel* quant_kernel_neon(DataType dtype, QuantFormat format) { return neon::quant_kernel(dtype, format); }

}  // namespace atb_core::cpu
