// SPDX-License-Identifier: Apache-2.0
// The AMX kernel, written on a type Tiles that has the tile operations: the instructions (tiles_amx.h) or
// plain C++ (tiles_emulated.h). Include after the level's vec_*.h and ints_*.h.
//
// A row tile is up to 16 rows x 32 elements, a weight tile one block step, an accumulator tile 16 rows x 16
// columns. A step of int8 has 64 elements. Eight tile registers: two row tiles x two blocks = 4 accumulators, 2 row tiles, 2 weight tiles, so
// that four loads feed four products. Up to 16 rows are one row tile.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>

#include "cpu/kernels/linear_finish-inl.h"
#include "cpu/kernels/linear_finish_ints-inl.h"
#include "cpu/kernels/linear_kernel.h"
#include "cpu/kernels/tiles.h"

namespace atb_core::cpu::ATB_CPU_LEVEL {
namespace {

inline constexpr size_t kAccRowBytes = kPairBlocks * kTileRowBytes;

// Fetches weights `ahead` of those of a step.
inline void prefetch_ahead(const TileJob& job, const std::byte* w) {
  if (job.ahead == 0) return;
  for (size_t i = 0; i < kPairBlocks * kTileBytes; i += 64) __builtin_prefetch(w + job.ahead + i, 0, 3);
}

// Fetches a step's share of the next slice, into L2, for which more lines can be under way than for L1: 64 and 128 rows
// take 0.82 and 0.85 of the time, 512 the same (Sapphire Rapids). The step's own tiles are asked for before, because they
// would wait behind what comes from memory: 48, 64 and 128 rows take 0.93, 0.87 and 0.88 of the time.
inline void prefetch_slice(const TileJob& job, const std::byte*& fetch) {
  for (int i = 0; i < job.prefetch_lines; ++i, fetch += 64) __builtin_prefetch(fetch, 0, 2);
}

// Prefetches a step's share of the sums that follow, which are those of the next rows: 64 lines in the eight steps of a
// slice. Without, each call waits for the second level of cache to load them.
inline void prefetch_sums(const std::byte* next, int64_t step) {
  for (int64_t line = 8 * step; line < 8 * (step + 1); ++line) __builtin_prefetch(next + line * 64, 1, 3);
}

// Accumulators 0 1, activations 4, weights 6 7. The sums depend on each other from step to step, but when
// there are so few rows, waiting for memory takes longer.
template <class Tiles>
void multiply_row_tile(const TileJob& job) {
  std::byte* acc = reinterpret_cast<std::byte*>(job.acc);
  if (job.first) {
    Tiles::template zero<0>();
    Tiles::template zero<1>();
  } else {
    Tiles::template load<0>(acc, kAccRowBytes);
    Tiles::template load<1>(acc + kTileRowBytes, kAccRowBytes);
  }
  const std::byte* x = job.x;
  const std::byte* w = job.w;
  const std::byte* fetch = job.prefetch;
  for (int64_t s = 0; s < job.steps; ++s) {
    prefetch_ahead(job, w);
    Tiles::template load<4>(x, kTileRowBytes);
    Tiles::template load<6>(w, kTileRowBytes);
    Tiles::template load<7>(w + kTileBytes, kTileRowBytes);
    prefetch_slice(job, fetch);
    Tiles::template dot<0, 4, 6>();
    Tiles::template dot<1, 4, 7>();
    x += static_cast<size_t>(job.rows) * kTileRowBytes;
    w += kPairBlocks * kTileBytes;
  }
  Tiles::template store<0>(acc, kAccRowBytes);
  Tiles::template store<1>(acc + kTileRowBytes, kAccRowBytes);
}

// Accumulators: 0 1 for the upper row tile, 2 3 for the lower one; activations 4 5; weights 6 7.
template <class Tiles>
void multiply_two_row_tiles(const TileJob& job) {
  constexpr size_t kLower = kTileRows * kAccRowBytes;
  std::byte* acc = reinterpret_cast<std::byte*>(job.acc);
  if (job.first) {
    Tiles::template zero<0>();
    Tiles::template zero<1>();
    Tiles::template zero<2>();
    Tiles::template zero<3>();
  } else {
    Tiles::template load<0>(acc, kAccRowBytes);
    Tiles::template load<1>(acc + kTileRowBytes, kAccRowBytes);
    Tiles::template load<2>(acc + kLower, kAccRowBytes);
    Tiles::template load<3>(acc + kLower + kTileRowBytes, kAccRowBytes);
  }
  const std::byte* x = job.x;
  const std::byte* w = job.w;
  const std::byte* fetch = job.prefetch;
  for (int64_t s = 0; s < job.steps; ++s) {
    prefetch_ahead(job, w);
    Tiles::template load<6>(w, kTileRowBytes);
    Tiles::template load<4>(x, kTileRowBytes);
    Tiles::template load<7>(w + kTileBytes, kTileRowBytes);
    Tiles::template load<5>(x + kTileRows * kTileRowBytes, kTileRowBytes);
    prefetch_sums(acc + 2 * kLower, s);
    prefetch_slice(job, fetch);
    Tiles::template dot<0, 4, 6>();
    Tiles::template dot<1, 4, 7>();
    Tiles::template dot<2, 5, 6>();
    Tiles::template dot<3, 5, 7>();
    x += 2 * kTileRows * kTileRowBytes;
    w += kPairBlocks * kTileBytes;
  }
  Tiles::template store<0>(acc, kAccRowBytes);
  Tiles::template store<1>(acc + kTileRowBytes, kAccRowBytes);
  Tiles::template store<2>(acc + kLower, kAccRowBytes);
  Tiles::template store<3>(acc + kLower + kTileRowBytes, kAccRowBytes);
}

template <class Tiles>
void multiply(const TileJob& job) {
  if (job.rows > kTileRows) return multiply_two_row_tiles<Tiles>(job);
  multiply_row_tile<Tiles>(job);
}

// Two accumulators from C on: of a block for two row tiles, or of a pair of blocks for one. Those of the unit before are
// stored meanwhile: a product into an accumulator that is being stored would wait.
template <class Tiles, bool TwoRowTiles, int C>
void multiply_unit(const TileJob& job, const std::byte* w, std::byte* before) {
  constexpr size_t kSecond = TwoRowTiles ? kTileRows * kAccRowBytes : kTileRowBytes;
  Tiles::template zero<C>();
  Tiles::template zero<C + 1>();
  const std::byte* x = job.x;
  for (int64_t s = 0; s < job.steps; ++s) {
    Tiles::template load<4>(x, kTileRowBytes);
    Tiles::template load<6>(w, kTileRowBytes);
    Tiles::template dot<C, 4, 6>();
    if constexpr (TwoRowTiles) {
      Tiles::template load<5>(x + kTileRows * kTileRowBytes, kTileRowBytes);
      Tiles::template dot<C + 1, 5, 6>();
    } else {
      Tiles::template load<7>(w + kTileBytes, kTileRowBytes);
      Tiles::template dot<C + 1, 4, 7>();
    }
    if (s == 0 && before != nullptr) {
      Tiles::template store<2 - C>(before, kAccRowBytes);
      Tiles::template store<3 - C>(before + kSecond, kAccRowBytes);
    }
    x += static_cast<size_t>(job.rows) * kTileRowBytes;
    w += kPairBlocks * kTileBytes;
  }
}

template <class Tiles, bool TwoRowTiles>
void multiply_units(const TileJob& job, int pairs, size_t pair_bytes) {
  constexpr size_t kSecond = TwoRowTiles ? kTileRows * kAccRowBytes : kTileRowBytes;
  std::byte *acc = reinterpret_cast<std::byte*>(job.acc), *before = nullptr;
  const std::byte* w = job.w;
  const size_t acc_bytes = static_cast<size_t>(job.rows) * kAccRowBytes;
  for (int p = 0; p < pairs; ++p, acc += acc_bytes, w += pair_bytes) {
    if constexpr (TwoRowTiles) {
      multiply_unit<Tiles, true, 0>(job, w, before);
      multiply_unit<Tiles, true, 2>(job, w + kTileBytes, acc);
      before = acc + kTileRowBytes;
    } else if (p % 2 == 0) {
      multiply_unit<Tiles, false, 0>(job, w, before);
      before = acc;
    } else {
      multiply_unit<Tiles, false, 2>(job, w, before);
      before = acc;
    }
  }
  if (TwoRowTiles || pairs % 2 == 0) {
    Tiles::template store<2>(before, kAccRowBytes);
    Tiles::template store<3>(before + kSecond, kAccRowBytes);
  } else {
    Tiles::template store<0>(before, kAccRowBytes);
    Tiles::template store<1>(before + kSecond, kAccRowBytes);
  }
}

template <class Tiles>
void multiply_pairs(const TileJob& job, int pairs, size_t pair_bytes) {
  if (job.rows > kTileRows) return multiply_units<Tiles, true>(job, pairs, pair_bytes);
  multiply_units<Tiles, false>(job, pairs, pair_bytes);
}

inline int tile_blocks(int) { return 2; }

template <int64_t Step>
void prepare_row(const void* x, int64_t k, std::byte* dst, size_t stride) {
  const auto* src = static_cast<const std::byte*>(x);
  for (; k >= Step; k -= Step, src += kTileRowBytes, dst += stride) std::memcpy(dst, src, kTileRowBytes);
  if (k == 0) return;
  std::memset(dst, 0, kTileRowBytes);
  std::memcpy(dst, src, static_cast<size_t>(k) * (kTileRowBytes / Step));
}

// A slice of weights and that of the rows that meet it stay in L1 together with the sums. With 32 KiB the sums are stored
// and loaded half as often, but the rows come from L2 with every pair of blocks, which took 1.3 times as long (Sapphire
// Rapids, L1 of 48 KiB).
inline constexpr size_t kSliceBytes = 16 << 10;

template <class Tiles>
constexpr LinearKernel kTileKernel = {
    kTileRows, 2 * kTileRows,    kTileRowBytes,  kSliceBytes, tile_blocks, prepare_row<kStep>,    multiply<Tiles>,
    finish,    Tiles::configure, Tiles::release, kStep,       0,           multiply_pairs<Tiles>,
};

// Of x and weights of int8: the tiles have as many bytes, and int32 for floats.
template <class Tiles>
constexpr LinearKernel kIntTileKernel = {
    kTileRows,       2 * kTileRows, kTileRowBytes,    kSliceBytes,    tile_blocks,    prepare_row<kIntegers.step>,
    multiply<Tiles>, finish_ints,   Tiles::configure, Tiles::release, kIntegers.step, kTileBytes,
};
static_assert(kIntegers.step_bytes() == kTileBytes);

}  // namespace
}  // namespace atb_core::cpu::ATB_CPU_LEVEL
