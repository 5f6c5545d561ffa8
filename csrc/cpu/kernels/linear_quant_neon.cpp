// SPDX-License-Identifier: Apache-2.0
// A sum takes four registers, a word of weights eight, an activation two: 2 rows.
#define ATB_CPU_LEVEL neon
#include "cpu/kernels/vec_neon.h"
// The vector types come first.
#include "cpu/kernels/ints_neon.h"
#define ATB_QUANT_ROWS 2
#include "cpu/kernels/linear_quant_one_block-inl.h"

namespace atb_core::cpu {

const LinearKernel* quant_kernel_neon(DataType dtype, QuantFormat format) { return neon::quant_kernel(dtype, format); }

}  // namespace atb_core::cpu
