// SPDX-License-Identifier: Apache-2.0
// 16 registers of 8 lanes; a block of 16 columns takes two. 3 rows x 1 block x 2 chains = 12 sums, 2 weights,
// 1 activation. One row takes 2 blocks (8 sums), enough to cover the latency of the multiply-add.
#define ATB_CPU_LEVEL avx2
#include "cpu/kernels/vec_avx2.h"
// The vector type comes first.
#include "cpu/kernels/linear_finish-inl.h"
#include "cpu/kernels/linear_vector-inl.h"

namespace atb_core::cpu {
namespace avx2 {
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
}  // namespace avx2

const LinearKernel* linear_kernel_avx2(DataType dtype) {
  switch (dtype) {
    case DataType::bf16:
      return &avx2::kKernel<avx2::Pairs>;
    case DataType::f16:
      return &avx2::kKernel<avx2::Scalars<Half>>;
    case DataType::f32:
      return &avx2::kKernel<avx2::Scalars<float>>;
    default:
      return nullptr;
  }
}

}  // namespace atb_core::cpu
