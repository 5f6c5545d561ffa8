// SPDX-License-Identifier: Apache-2.0
// The kernels for quantised weights of a level whose registers hold two rows of sums, or one row of two blocks. Include
// after the level's vec_*.h and ints_*.h.
#pragma once

#include "cpu/kernels/linear_quant-inl.h"

namespace atb_core::cpu::ATB_CPU_LEVEL {
namespace {

constexpr int kQuantRows = 2;
int quant_blocks(int rows) { return rows == 1 ? 2 : 1; }

template <QuantLayout L>
void multiply_quant(const TileJob& job) {
  if (job.blocks == 2) return multiply_quant_tile<L, 1, 2>(job);
  constexpr void (*kTiles[])(const TileJob&) = {multiply_quant_tile<L, 1, 1>, multiply_quant_tile<L, 2, 1>};
  kTiles[job.rows - 1](job);
}

}  // namespace
}  // namespace atb_core::cpu::ATB_CPU_LEVEL

#include "cpu/kernels/linear_quant_table-inl.h"
