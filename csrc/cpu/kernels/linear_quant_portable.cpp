// SPDX-License-Identifier: Apache-2.0
// Without any instruction set extension, also for other architectures.
#define ATB_CPU_LEVEL portable
#include "cpu/kernels/vec_portable.h"
// The vector types come first.
#include "cpu/kernels/ints_portable.h"
#include "cpu/kernels/linear_quant-inl.h"

namespace atb_core::cpu {
namespace portable {
namespace {

struct QuantShapes : VectorShapes {
  static constexpr int kRows = 2;
  static int blocks(int) { return 1; }

  template <QuantLayout L>
  static void multiply(const TileJob& job) {
    constexpr void (*kTiles[])(const TileJob&) = {multiply_quant_tile<L, 1, 1>, multiply_quant_tile<L, 2, 1>};
    kTiles[job.rows - 1](job);
  }
};

}  // namespace
}  // namespace portable
}  // namespace atb_core::cpu

#include "cpu/kernels/linear_quant_table-inl.h"

namespace atb_core::cpu {

const LinearKernel* quant_kernel_portable(DataType dtype, QuantFormat format) {
  return portable::quant_kernel(dtype, format);
}

}  // namespace atb_core::cpu
