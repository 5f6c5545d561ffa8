// SPDX-License-Identifier: Apache-2.0
// 32 registers of 4 lanes; a block of 16 columns takes four. 3 rows x 1 block x 2 chains = 24 sums, 4 weights,
// 1 activation. One row takes 2 blocks (16 sums), enough to cover the latency of the multiply-add.
#define ATB_CPU_LEVEL neon
#include "cpu/kernels/vec_neon.h"
// The vector type comes first.
#include "cpu/kernels/linear_finish-inl.h"
#include "cpu/kernels/linear_vector-inl.h"

namespace atb_core::cpu {
namespace neon {
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

}  // namespace
}  // namespace neon

const LinearKernel* linear_kernel_neon(DataType dtype) {
  switch (dtype) {
    case DataType::bf16:
      return &neon::kKernel<neon::Pairs>;
    case DataType::f16:
      return &neon::kKernel<neon::Scalars<Half>>;
    case DataType::f32:
      return &neon::kKernel<neon::Scalars<float>>;
    default:
      return nullptr;
  }
}

}  // namespace atb_core::cpu
