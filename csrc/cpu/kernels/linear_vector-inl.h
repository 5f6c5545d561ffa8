// SPDX-License-Identifier: Apache-2.0
// The tile kernel of the levels without tile registers, written once on F16. A source file defines
// ATB_CPU_LEVEL, includes the level's vec_*.h, then this; it picks the tile shapes and perhaps adds a policy
// of its own.
//
// A policy P says how a weight layout becomes links of the even (0) and the odd (1) chain:
//   Weight                  16 columns of a link, as mac() takes them
//   kItemBytes              of one activation
//   kWords, kRowBytes       links per chain and step of 32; bytes of a prepared row and step
//   kLinkBytes              bytes of weights per link: 2 * kWords * kLinkBytes is a block step
//   weight<chain>(w, j)     link j of a chain, of the block step at w
//   value<chain>(x, j)      the same of a prepared row, an activation for all columns
//   mac(sum, weight, value) sum + weight * value, fused
//   prepare_step(src, dst)  32 activations
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>

#include "cpu/kernels/linear_kernel.h"
#include "cpu/kernels/vec_types.h"

#if defined(__clang__)
#define ATB_UNROLL _Pragma("unroll")
#else
#define ATB_UNROLL _Pragma("GCC unroll 16")
#endif

namespace atb_core::cpu::ATB_CPU_LEVEL {
namespace {

// Activations as float32 and one fused multiply-add per element.
struct FloatLinks {
  using Weight = F16;
  static constexpr int kWords = 16;
  static constexpr size_t kRowBytes = 128;
  template <int Chain>
  static F16 value(const std::byte* x, int j) {
    return set1(reinterpret_cast<const float*>(x)[2 * j + Chain]);
  }
  static F16 mac(const F16& sum, const F16& weight, const F16& value) { return fma(weight, value, sum); }
  template <typename T>
  static void widen_step(const std::byte* src, std::byte* dst) {
    store(reinterpret_cast<float*>(dst), load(reinterpret_cast<const T*>(src)));
    store(reinterpret_cast<float*>(dst) + 16, load(reinterpret_cast<const T*>(src) + 16));
  }
};

// f32 and f16: [element][column].
template <typename T>
struct Scalars : FloatLinks {
  static constexpr size_t kItemBytes = sizeof(T);
  static constexpr int kLinkBytes = static_cast<int>(kBlockColumns * sizeof(T));
  template <int Chain>
  static Weight weight(const std::byte* w, int j) {
    return load(reinterpret_cast<const T*>(w + (2 * j + Chain) * kLinkBytes));
  }
  static void prepare_step(const std::byte* src, std::byte* dst) { widen_step<T>(src, dst); }
};

// bf16 in natural pairs: one shift or mask makes a float32 of either half of a word.
struct Pairs : FloatLinks {
  static constexpr size_t kItemBytes = 2;
  static constexpr int kLinkBytes = 32;
  template <int Chain>
  static Weight weight(const std::byte* w, int j) {
    const F16 words = load(reinterpret_cast<const float*>(w + j * 64));
    return Chain == 0 ? low_bf16(words) : high_bf16(words);
  }
  static void prepare_step(const std::byte* src, std::byte* dst) { widen_step<Bf16>(src, dst); }
};

template <class P>
inline constexpr size_t kBlockStep = static_cast<size_t>(P::kLinkBytes) * 2 * P::kWords;

// One link of one chain for all rows and blocks. The chains take turns, so that only NB weights are live at
// once.
template <class P, int Chain, bool Ahead, int MR, int NB>
__attribute__((always_inline)) inline void link(F16 (&sum)[MR][NB], const std::byte* w, const std::byte* x, int j,
                                                size_t ahead) {
  typename P::Weight weight[NB];
  ATB_UNROLL for (int b = 0; b < NB; ++b) {
    const std::byte* block = w + static_cast<size_t>(b) * kBlockStep<P>;
    weight[b] = P::template weight<Chain>(block, j);
    // Prefetches are spread among the loads: one for each cache line of weights.
    const int offset = (2 * j + Chain) * P::kLinkBytes;
    if (Ahead && offset % 64 == 0) prefetch(block + static_cast<size_t>(offset) + ahead);
  }
  ATB_UNROLL for (int r = 0; r < MR; ++r) {
    const auto value = P::template value<Chain>(x + static_cast<size_t>(r) * P::kRowBytes, j);
    ATB_UNROLL for (int b = 0; b < NB; ++b) sum[r][b] = P::mac(sum[r][b], weight[b], value);
  }
}

// 32 elements of k for NB of the blocks of a tile: acc = from + (even + odd).
template <class P, bool Ahead, int MR, int NB, int TileBlocks>
__attribute__((always_inline)) inline void step(const float* from, float* acc, const std::byte* w, const std::byte* x,
                                                size_t ahead) {
  F16 even[MR][NB], odd[MR][NB];
  ATB_UNROLL for (int r = 0; r < MR; ++r) { ATB_UNROLL for (int b = 0; b < NB; ++b) even[r][b] = odd[r][b] = zero(); }
  ATB_UNROLL for (int j = 0; j < P::kWords; ++j) {
    link<P, 0, Ahead>(even, w, x, j, ahead);
    link<P, 1, Ahead>(odd, w, x, j, ahead);
  }
  ATB_UNROLL for (int r = 0; r < MR; ++r) {
    ATB_UNROLL for (int b = 0; b < NB; ++b) {
      const int64_t at = (r * TileBlocks + b) * kBlockColumns;
      store(acc + at, load(from + at) + (even[r][b] + odd[r][b]));
    }
  }
}

// Weights that come from memory are read block after block, so that their lines ascend: with the lines of two blocks
// in turns, the processor's prefetcher does not recognise the stream, and a core reads 11 GB/s instead of 30 (Zen 4;
// software prefetches, at any distance, make 13 to 20 of it). Weights in L1 are read together, for each activation is
// then loaded once.
template <class P, int MR, int NB, bool Ahead>
void multiply_tile(const TileJob& job) {
  constexpr int kTogether = Ahead ? 1 : NB;
  // Where a sum starts. Clearing `acc` instead takes a tenth of the time of a short sum.
  alignas(64) static constexpr float kZeros[MR * NB * kBlockColumns] = {};
  if (job.first && job.steps == 0) std::memset(job.acc, 0, sizeof(kZeros));
  const float* from = job.first ? kZeros : job.acc;
  const std::byte* w = job.w;
  const std::byte* x = job.x;
  const std::byte* fetch = job.prefetch;
  for (int64_t s = 0; s < job.steps; ++s) {
    ATB_UNROLL for (int b = 0; b < NB; b += kTogether) {
      step<P, Ahead, MR, kTogether, NB>(from + b * kBlockColumns, job.acc + b * kBlockColumns,
                                        w + static_cast<size_t>(b) * kBlockStep<P>, x, job.ahead);
    }
    from = job.acc;
    if constexpr (!Ahead) {
      for (int i = 0; i < job.prefetch_lines; ++i, fetch += 64) prefetch(fetch);
    }
    x += MR * P::kRowBytes;
    w += kPairBlocks * kBlockStep<P>;
  }
}

template <class P, int MR, int NB>
void multiply_tile(const TileJob& job) {
  if (job.ahead > 0) {
    multiply_tile<P, MR, NB, true>(job);
  } else {
    multiply_tile<P, MR, NB, false>(job);
  }
}

template <class P>
void prepare_row(const void* x, int64_t k, std::byte* dst, size_t stride) {
  const auto* src = static_cast<const std::byte*>(x);
  constexpr size_t kStepBytes = kStep * P::kItemBytes;
  for (; k >= kStep; k -= kStep, src += kStepBytes, dst += stride) P::prepare_step(src, dst);
  if (k > 0) {
    alignas(64) std::byte padded[kStepBytes] = {};
    std::memcpy(padded, src, static_cast<size_t>(k) * P::kItemBytes);
    P::prepare_step(padded, dst);
  }
}

inline void no_setup(int) {}
inline void no_teardown() {}

}  // namespace
}  // namespace atb_core::cpu::ATB_CPU_LEVEL
