// SPDX-License-Identifier: Apache-2.0
// The kernels for quantised weights of a level with 32 registers of sixteen lanes: 6 rows x 2 blocks = 12 sums.
// Include after the level's vec_*.h and ints_*.h.
#pragma once

#include "cpu/kernels/linear_quant-inl.h"

namespace atb_core::cpu::ATB_CPU_LEVEL {
namespace {

struct QuantShapes : VectorShapes {
  static constexpr int kRows = 6;
  static int blocks(int) { return 2; }

  template <QuantLayout L>
  static void multiply(const TileJob& job) {
    constexpr void (*kTiles[])(const TileJob&) = {
        multiply_quant_tile<L, 1, 2>, multiply_quant_tile<L, 2, 2>, multiply_quant_tile<L, 3, 2>,
        multiply_quant_tile<L, 4, 2>, multiply_quant_tile<L, 5, 2>, multiply_quant_tile<L, 6, 2>,
    };
    kTiles[job.rows - 1](job);
  }
};

}  // namespace
}  // namespace atb_core::cpu::ATB_CPU_LEVEL

#include "cpu/kernels/linear_quant_table-inl.h"
