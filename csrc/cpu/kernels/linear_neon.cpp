// SPDX-License-Identifier: Apache-2.0
// 32 registers of 4 lanes; a block of 16 columns takes four. 3 rows x 1 block x 2 chains = 24 sums, 4 weights,
// 1 activation. One row takes 2 blocks (16 sums), enough to cover the latency of the multiply-add.
#define ATB_CPU_LEVEL neon
#include "cpu/kernels/vec_neon.h"
// The vector type comes first.
#include "cpu/kernels/linear_three_rows-inl.h"

namespace atb_core::cpu {

const LinearKernel* linear_kernel_neon(DataType dtype) { return neon::three_rows_kernel(dtype); }

}  // namespace atb_core::cpu
