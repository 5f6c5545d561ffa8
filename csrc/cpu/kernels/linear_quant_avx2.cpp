// SPDX-License-Identifier: Apache-2.0
// A sum takes two registers, a word of weights four, an activation two: 2 rows.
#define ATB_CPU_LEVEL avx2
#include "cpu/kernels/vec_avx2.h"
// The vector types come first.
#include "cpu/kernels/ints_avx2.h"
#include "cpu/kernels/linear_quant-inl.h"

namespace atb_core::cpu {
namespace avx2 {
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
}  // namespace avx2
}  // namespace atb_core::cpu

#include "cpu/kernels/linear_quant_table-inl.h"

namespace atb_core::cpu {

const LinearKernel* quant_kernel_avx2(DataType dtype, QuantFormat format) { return avx2::quant_kernel(dtype, format); }

}  // namespace atb_core::cpu
