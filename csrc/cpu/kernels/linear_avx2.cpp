// SPDX-License-Identifier: Apache-2.0
// 16 registers of 8 lanes; a block of 16 columns takes two. 3 rows x 1 block x 2 chains = 12 sums, 2 weights,
// 1 activation. One row takes 2 blocks (8 sums), enough to cover the latency of the multiply-add.
#define ATB_CPU_LEVEL avx2
#include "cpu/kernels/vec_avx2.h"
// The vector type comes first.
#include "cpu/kernels/linear_three_rows-inl.h"

namespace atb_core::cpu {

const LinearKernel* linear_kernel_avx2(DataType dtype) { return avx2::three_rows_kernel(dtype); }

}  // namespace atb_core::cpu
