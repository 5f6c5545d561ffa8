// SPDX-License-Identifier: Apache-2.0
// AMX's tile operations in plain C++, to test kernels on any machine. Include after the level's vec_portable.h.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>

#include "cpu/kernels/linear_exact-inl.h"
#include "cpu/kernels/linear_kernel.h"
#include "cpu/kernels/tiles.h"

namespace atb_core::cpu::ATB_CPU_LEVEL {
namespace {

struct TileState {
  int rows[8] = {};  // zero: not configured
  int row_bytes[8] = {};
  alignas(64) std::byte data[8][kTileRows][kTileRowBytes];
};

// As on the processor, the tiles belong to the thread and using one that is not configured is fatal.
TileState& state(int tile) {
  thread_local TileState tiles;
  if (tile >= 0 && tiles.rows[tile] == 0) std::abort();
  return tiles;
}

struct Emulation {
  static void configure(int rows, int depth) {
    TileState& tiles = state(-1);
    for (int t = 0; t < 8; ++t) {
      tiles.rows[t] = t < 6 ? rows : depth / 4;
      tiles.row_bytes[t] = t == 4 || t == 5 ? depth : int{kTileRowBytes};
    }
  }
  static void configure(int rows) { configure(rows, kTileRowBytes); }
  static void release() {
    for (int& rows : state(-1).rows) rows = 0;
  }
  template <int T>
  static void zero() {
    std::memset(state(T).data[T], 0, kTileBytes);
  }
  // Loads a tile; what is beyond the configured rows and bytes is zero.
  template <int T>
  static void load(const std::byte* p, size_t stride) {
    TileState& tiles = state(T);
    std::memset(tiles.data[T], 0, kTileBytes);
    for (int r = 0; r < tiles.rows[T]; ++r) std::memcpy(tiles.data[T][r], p + r * stride, bytes_of(tiles, T));
  }
  template <int T>
  static void store(std::byte* p, size_t stride) {
    const TileState& tiles = state(T);
    for (int r = 0; r < tiles.rows[T]; ++r) std::memcpy(p + r * stride, tiles.data[T][r], kTileRowBytes);
  }
  // For each row: one chain over the even elements, one over the odd ones, then accumulator += even + odd.
  template <int C, int A, int B>
  static void dot() {
    TileState& tiles = operands(C, A, B);
    for (int r = 0; r < tiles.rows[C]; ++r) {
      F16 even = zero_lanes(), odd = zero_lanes();
      const auto* x = reinterpret_cast<const Bf16*>(tiles.data[A][r]);
      for (int j = 0; j < kTileRows; ++j) {
        const F16 words = load_lanes(tiles.data[B][j]);
        even = fma_short(set1(widen(x[2 * j])), low_bf16(words), even);
        odd = fma_short(set1(widen(x[2 * j + 1])), high_bf16(words), odd);
      }
      auto* acc = reinterpret_cast<float*>(tiles.data[C][r]);
      ATB_CPU_LEVEL::store(acc, load_lanes(tiles.data[C][r]) + (even + odd));
    }
  }

  static TileState& operands(int sums, int a, int b) {
    state(a), state(b);
    return state(sums);
  }

 private:
  static size_t bytes_of(const TileState& tiles, int tile) { return static_cast<size_t>(tiles.row_bytes[tile]); }
  static F16 zero_lanes() { return ATB_CPU_LEVEL::zero(); }
  static F16 load_lanes(const std::byte* p) { return ATB_CPU_LEVEL::load(reinterpret_cast<const float*>(p)); }
};

struct IntEmulation : Emulation {
  template <int C, int A, int B>
  static void dot() {
    TileState& tiles = operands(C, A, B);
    for (int r = 0; r < tiles.rows[C]; ++r) {
      auto* acc = reinterpret_cast<int32_t*>(tiles.data[C][r]);
      const auto* x = reinterpret_cast<const int8_t*>(tiles.data[A][r]);
      for (int j = 0; j < static_cast<int>(kTileRowBytes); ++j) {
        const auto* words = reinterpret_cast<const int8_t*>(tiles.data[B][j / 4]);
        for (int c = 0; c < kBlockColumns; ++c) acc[c] += x[j] * words[4 * c + j % 4];
      }
    }
  }
};

}  // namespace
}  // namespace atb_core::cpu::ATB_CPU_LEVEL
