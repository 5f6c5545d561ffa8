// SPDX-License-Identifier: Apache-2.0
// With sdot, which takes 4 elements of 4 columns: a sum and a word of weights take four registers, an activation one. 4 rows.
#define ATB_CPU_LEVEL neon_dot
#include "cpu/kernels/vec_neon.h"
// The vector types come first.
#include "cpu/kernels/ints_neon.h"
#define ATB_QUANT_ROWS 4
#include "cpu/kernels/linear_quant_one_block-inl.h"

namespace atb_core::cpu {

const LinearKernel* quant_kernel_neon_dot(DataType dtype, QuantFormat format) {
  return neon_dot::quant_kernel(dtype, format);
}

}  // namespace atb_core::cpu
