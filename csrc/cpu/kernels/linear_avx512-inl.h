// SPDX-License-Identifier: Apache-2.0
// Tile shapes of the levels with 32 registers of 16 lanes: 6 rows x 2 blocks x 2 chains = 24 sums, 2 weights
// and 1 activation. The running accumulators stay in L1; they are touched once per 32 elements. Per link of a
// chain that is 2 + 6 loads for 12 multiplications, below the two loads per cycle of current cores. In L1
// this runs at 95% of a loop of multiplications between registers. Few rows take 2 blocks, too: 4 blocks are
// two streams of memory instead of one, and no faster, as the chains of successive steps are independent and
// overlap anyway.
#pragma once

#include "cpu/kernels/linear_finish-inl.h"
#include "cpu/kernels/linear_vector-inl.h"

namespace atb_core::cpu::ATB_CPU_LEVEL {
namespace {

inline int tile_blocks(int) { return 2; }

template <class P>
void multiply(const TileJob& job) {
  constexpr void (*kTiles[])(const TileJob&) = {multiply_tile<P, 1, 2>, multiply_tile<P, 2, 2>, multiply_tile<P, 3, 2>,
                                                multiply_tile<P, 4, 2>, multiply_tile<P, 5, 2>, multiply_tile<P, 6, 2>};
  kTiles[job.rows - 1](job);
}

// L1 is 32 to 48 KiB, and two hyper-threads share it. 8 to 24 KiB are alike, 32 KiB is slower with both
// threads busy.
inline constexpr size_t kSliceBytes = 16 << 10;

template <class P>
constexpr LinearKernel kKernel = {
    1, 6, P::kRowBytes, kSliceBytes, tile_blocks, prepare_row<P>, multiply<P>, finish, no_setup, no_teardown,
};

}  // namespace
}  // namespace atb_core::cpu::ATB_CPU_LEVEL
