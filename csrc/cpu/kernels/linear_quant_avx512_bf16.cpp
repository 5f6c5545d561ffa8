// SPDX-License-Identifier: Apache-2.0
// With VNNI, which every processor of this level has. 6 rows x 2 blocks = 12 sums.
#define ATB_CPU_LEVEL avx512_bf16
#include "cpu/kernels/vec_avx512.h"
// The vector types come first.
#include "cpu/kernels/ints_avx512.h"
#include "cpu/kernels/linear_quant-inl.h"

namespace atb_core::cpu {
namespace avx512_bf16 {
namespace {

constexpr int kQuantRows = 6;
int quant_blocks(int) { return 2; }

template <QuantLayout L>
void multiply_quant(const TileJob& job) {
  constexpr void (*kTiles[])(const TileJob&) = {
      multiply_quant_tile<L, 1, 2>, multiply_quant_tile<L, 2, 2>, multiply_quant_tile<L, 3, 2>,
      multiply_quant_tile<L, 4, 2>, multiply_quant_tile<L, 5, 2>, multiply_quant_tile<L, 6, 2>,
  };
  kTiles[job.rows - 1](job);
}

}  // namespace
}  // namespace avx512_bf16
}  // namespace atb_core::cpu

#include "cpu/kernels/linear_quant_table-inl.h"

namespace atb_core::cpu {

const LinearKernel* quant_kernel_avx512_bf16(DataType dtype, QuantFormat format) {
  return avx512_bf16::quant_kernel(dtype, format);
}

}  // namespace atb_core::cpu
