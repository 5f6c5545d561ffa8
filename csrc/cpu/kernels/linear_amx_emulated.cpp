// SPDX-License-Identifier: Apache-2.0
// The AMX kernel over tile operations in plain C++, to test its blocking and its bits on any machine.
#define ATB_CPU_LEVEL amx_emulated
#include "cpu/kernels/vec_portable.h"
// The vector types come first.
#include "cpu/kernels/ints_portable.h"
#include "cpu/kernels/linear_amx-inl.h"
#include "cpu/kernels/tiles_emulated.h"

namespace atb_core::cpu {

const LinearKernel* linear_kernel_amx_emulated(DataType dtype) {
  if (dtype == DataType::i8) return &amx_emulated::kIntTileKernel<amx_emulated::IntEmulation>;
  return dtype == DataType::bf16 ? &amx_emulated::kTileKernel<amx_emulated::Emulation> : nullptr;
}

}  // namespace atb_core::cpu
