// SPDX-License-Identifier: Apache-2.0
// A sum takes two registers, a word of weights four, an activation two: 2 rows.
#define ATB_CPU_LEVEL avx2
#include "cpu/kernels/vec_avx2.h"
// The vector types come first.
#include "cpu/kernels/ints_avx2.h"
#define ATB_QUANT_ROWS 2
#include "cpu/kernels/linear_quant_one_block-inl.h"

namespace atb_core::cpu {

const LinearKernel* quant_kernel_avx2(DataType dtype, QuantFormat format) { return avx2::quant_kernel(dtype, format); }

}  // namespace atb_core::cpu
