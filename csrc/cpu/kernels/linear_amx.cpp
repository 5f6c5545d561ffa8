// SPDX-License-Identifier: Apache-2.0
#define ATB_CPU_LEVEL amx
#include "cpu/kernels/vec_avx512.h"
// The vector types come first.
#include "cpu/kernels/ints_avx512.h"
#include "cpu/kernels/linear_amx-inl.h"
#include "cpu/kernels/tiles_amx.h"

namespace atb_core::cpu {

const LinearKernel* linear_kernel_amx(DataType dtype) {
  if (dtype == DataType::i8) return &amx::kIntTileKernel<amx::IntInstructions>;
  return dtype == DataType::bf16 ? &amx::kTileKernel<amx::Instructions> : nullptr;
}

}  // namespace atb_core::cpu
