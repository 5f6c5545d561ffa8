// SPDX-License-Identifier: Apache-2.0
#define ATB_CPU_LEVEL amx
#include "cpu/kernels/vec_avx512.h"
// The vector types come first.
#include "cpu/kernels/ints_avx512.h"
#include "cpu/kernels/linear_quant_amx-inl.h"
#include "cpu/kernels/tiles_amx.h"

namespace atb_core::cpu::amx {
namespace {

using QuantShapes = TileShapes<IntInstructions, 6, 16>;

}  // namespace
}  // namespace atb_core::cpu::amx

#include "cpu/kernels/linear_quant_table-inl.h"

namespace atb_core::cpu {

// Integers as they are have kernels of their own, see linear_amx-inl.h.
const LinearKernel* quant_kernel_amx(DataType dtype, QuantFormat format) {
  return amx::float_quant_kernel(dtype, format);
}

}  // namespace atb_core::cpu
