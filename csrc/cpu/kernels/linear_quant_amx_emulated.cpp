// SPDX-License-Identifier: Apache-2.0
#define ATB_CPU_LEVEL amx_emulated
// Vectors are arrays here: unrolled, they take the compiler minutes.
#define ATB_QUANT_UNROLL
#include "cpu/kernels/vec_portable.h"
// The vector types come first.
#include "cpu/kernels/ints_portable.h"
#include "cpu/kernels/linear_quant_amx-inl.h"
#include "cpu/kernels/tiles_emulated.h"

namespace atb_core::cpu::amx_emulated {
namespace {

using QuantShapes = TileShapes<IntEmulation, 0, 8>;

}  // namespace
}  // namespace atb_core::cpu::amx_emulated

#include "cpu/kernels/linear_quant_table-inl.h"

namespace atb_core::cpu {

// Integers as they are have kernels of their own, see linear_amx-inl.h.
const LinearKernel* quant_kernel_amx_emulated(DataType dtype, QuantFormat format) {
  return amx_emulated::float_quant_kernel(dtype, format);
}

}  // namespace atb_core::cpu
