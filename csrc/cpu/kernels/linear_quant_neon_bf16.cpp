// SPDX-License-Identifier: Apache-2.0
// With usmmla, which takes 8 elements of 2 columns and 2 rows, and usdot for a single row: a sum takes four registers. 4 rows.
#define ATB_CPU_LEVEL neon_bf16
#include "cpu/kernels/vec_neon.h"
// The vector types come first.
#include "cpu/kernels/ints_neon.h"
#define ATB_QUANT_ROWS 4
#include "cpu/kernels/linear_quant_one_block-inl.h"

namespace atb_core::cpu {

const LinearKernel* quant_kernel_neon_bf16(DataType dtype, QuantFormat format) {
  return neon_bf16::quant_kernel(dtype, format);
}

}  // namespace atb_core::cpu
