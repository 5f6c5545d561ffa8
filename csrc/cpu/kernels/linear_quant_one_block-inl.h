// SPDX-License-Identifier: Apache-2.0
// The kernels for quantised weights of a level whose registers hold ATB_QUANT_ROWS rows of sums, or one row of two blocks.
// Include after the level's vec_*.h and ints_*.h.
#pragma once

#include "cpu/kernels/linear_quant-inl.h"

namespace atb_core::cpu::ATB_CPU_LEVEL {
namespace {

struct QuantShapes : VectorShapes {
  static constexpr int kRows = ATB_QUANT_ROWS;
  static int blocks(int rows) { return rows == 1 ? 2 : 1; }

  template <QuantLayout L>
  static void multiply(const TileJob& job) {
    if (job.blocks == 2) return multiply_quant_tile<L, 1, 2>(job);
    multiply_block<L, kRows>(job);
  }

 private:
  // A tile of one block and as many rows as the job has, at most `Rows`.
  template <QuantLayout L, int Rows>
  static void multiply_block(const TileJob& job) {
    if constexpr (Rows > 1) {
      if (job.rows < Rows) return multiply_block<L, Rows - 1>(job);
    }
    multiply_quant_tile<L, Rows, 1>(job);
  }
};

}  // namespace
}  // namespace atb_core::cpu::ATB_CPU_LEVEL

#include "cpu/kernels/linear_quant_table-inl.h"
