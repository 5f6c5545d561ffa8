// SPDX-License-Identifier: Apache-2.0
// With VNNI, which every processor of this level has.
#define ATB_CPU_LEVEL avx512_bf16
#include "cpu/kernels/vec_avx512.h"
// The vector types come first.
#include "cpu/kernels/ints_avx512.h"
#include "cpu/kernels/linear_quant_two_blocks-inl.h"

namespace atb_core::cpu {

const LinearKernel* quant_kernel_avx512_bf16(DataType dtype, QuantFormat format) {
  return avx512_bf16::quant_kernel(dtype, format);
}

}  // namespace atb_core::cpu
