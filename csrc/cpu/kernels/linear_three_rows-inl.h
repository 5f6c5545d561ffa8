// SPDX-License-Identifier: Apache-2.0
// The kernels of a level whose registers hold three rows of sums, or one row of two blocks. Include after the level's
// vec_*.h.
#pragma once

#include "cpu/kernels/linear_finish-inl.h"
#include "cpu/kernels/linear_vector-inl.h"

namespace atb_core::cpu::ATB_CPU_LEVEL {
namespace {

int tile_blocks(int rows) { return rows == 1 ? 2 : 1; }

template <class P>
void multiply(const TileJob& job) {
  if (job.blocks == 2) return multiply_tile<P, 1, 2>(job);
  constexpr void (*kTiles[])(const TileJob&) = {multiply_tile<P, 1, 1>, multiply_tile<P, 2, 1>, multiply_tile<P, 3, 1>};
  kTiles[job.rows - 1](job);
}

template <class P>
constexpr LinearKernel kKernel = {
    1, 3, P::kRowBytes, 16 << 10, tile_blocks, prepare_row<P>, multiply<P>, finish, no_setup, no_teardown,
};

inline const LinearKernel* three_rows_kernel(DataType dtype) {
  switch (dtype) {
    case DataType::bf16:
      return &kKernel<Pairs>;
    case DataType::f16:
      return &kKernel<Scalars<Half>>;
    case DataType::f32:
      return &kKernel<Scalars<float>>;
    default:
      return nullptr;
  }
}

}  // namespace
}  // namespace atb_core::cpu::ATB_CPU_LEVEL
