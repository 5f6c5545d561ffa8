// SPDX-License-Identifier: Apache-2.0
// The tile kernel for weights of 8 bits and fewer, written once on F16, and I16 (sixteen 32-bit integers) of ints_*.h.
// A source file defines ATB_CPU_LEVEL, includes the level's vec_*.h and ints_*.h, then this.
//
// Activations become integers of 8 bits with a scale for each group of 32 (64 where weights have one scale for each
// output). Products of integers are exact in any order; linear.h has the order of the float part.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <limits>
#include <type_traits>

#include "cpu/kernels/int8-inl.h"
#include "cpu/kernels/linear_kernel.h"
#include "cpu/kernels/quant.h"
#include "cpu/kernels/vec_types.h"

#if defined(ATB_QUANT_UNROLL)  // by the source file
#elif defined(__clang__)
#define ATB_QUANT_UNROLL _Pragma("unroll")
#else
#define ATB_QUANT_UNROLL _Pragma("GCC unroll 16")
#endif

namespace atb_core::cpu::ATB_CPU_LEVEL {
namespace {

// Prepared activations of one step: integers, then scales, then the sums of the integers, as floats where minima are
// multiplied by them.
template <QuantLayout L>
struct QuantRow {
  static constexpr bool kHasMinima = L.minimum || L.scales == QuantScales::super_32;
  using Sum = std::conditional_t<kHasMinima, float, int32_t>;
  static constexpr bool kWhole = L.scales == QuantScales::channels || L.scales == QuantScales::integers;
  static constexpr int kGroup = kWhole ? 64 : 32;
  static constexpr int kSum = kWhole ? 64 : L.scales == QuantScales::super_16 ? 16 : 32;
  int8_t q[L.step];
  float scale[L.step / kGroup];
  Sum sum[L.step / kSum];
};

// Integers of one group: round(x * (127 / largest)). Values that are not finite make the group's scale NaN, which goes
// through to the result.
template <int Group>
inline float quantize_group(const float* x, int8_t* q) {
  Largest magnitudes;
  for (int i = 0; i < Group; i += 16) magnitudes.add(load(x + i));
  const float largest = magnitudes.get();
  const bool finite = largest <= std::numeric_limits<float>::max();
  if (!finite || largest < 0x1p-100F) {
    std::memset(q, 0, Group);
    return finite ? 0 : std::numeric_limits<float>::quiet_NaN();
  }
  const F16 inverse = set1(127 / largest);
  for (int i = 0; i < Group; i += 16) store(q + i, load(x + i) * inverse);
  return largest / 127;
}

template <typename T, QuantLayout L>
void prepare_quant_row(const void* x, int64_t k, std::byte* dst, size_t stride) {
  using Row = QuantRow<L>;
  const T* src = static_cast<const T*>(x);
  for (; k > 0; k -= L.step, src += L.step, dst += stride) {
    float values[L.step];
    for (int i = 0; i < L.step; i += 16) {
      const int64_t rest = k - i;
      store(values + i, rest >= 16 ? load(src + i) : rest > 0 ? load_n(src + i, static_cast<int>(rest)) : zero());
    }
    auto& row = *reinterpret_cast<Row*>(dst);
    for (int i = 0; i < L.step; i += Row::kGroup)
      row.scale[i / Row::kGroup] = quantize_group<Row::kGroup>(values + i, row.q + i);
    for (int i = 0; i < L.step; i += Row::kSum) {
      int32_t sum = 0;
      for (int j = 0; j < Row::kSum; ++j) sum += row.q[i + j];
      row.sum[i / Row::kSum] = static_cast<typename Row::Sum>(sum);
    }
  }
}

// Rows that are integers already; their scale is not read.
inline void prepare_int_row(const void* x, int64_t k, std::byte* dst, size_t stride) {
  const int8_t* src = static_cast<const int8_t*>(x);
  for (; k > 0; k -= kIntegers.step, src += kIntegers.step, dst += stride) {
    auto& row = *reinterpret_cast<QuantRow<kIntegers>*>(dst);
    const int64_t count = k < kIntegers.step ? k : kIntegers.step;
    std::memset(row.q, 0, sizeof row.q);
    std::memcpy(row.q, src, static_cast<size_t>(count));
    row.scale[0] = 0;
    row.sum[0] = 0;
    for (const int8_t q : row.q) row.sum[0] += q;
  }
}

// Word `W` (0..7) of group `sub` of 32 elements: 4 elements of 16 columns.
template <QuantLayout L, int W>
inline B64 weight_word(const std::byte* step, int sub) {
  if constexpr (L.bits == 8) {
    return load_bytes(step + (sub * 8 + W) * 64);
  } else {
    const B64 pair = load_bytes(step + (sub * 4 + W / 2) * 64);
    const B64 low = W % 2 == 0 ? low_nibbles(pair) : high_nibbles(pair);
    const std::byte* high = step + L.low_bytes();
    if constexpr (L.bits == 5) return low | bit_at_4<4 - W, 0x10>(load_bytes(high + sub * 64));
    if constexpr (L.bits == 6) return low | bit_at_4<4 - W % 4 * 2, 0x30>(load_bytes(high + (sub * 2 + W / 4) * 64));
    return low;
  }
}

// The scales of a block's columns for a group: of its integers, and the other factor, which is the minimum for the sum of
// the row's integers, or the scale of the second half.
template <QuantLayout L>
struct GroupScales {
  F16 scale, other;

  // Those of group `sub` of a step whose scales begin at `scales`.
  __attribute__((always_inline)) static inline GroupScales at(const std::byte* scales, int sub) {
    const auto* halves = reinterpret_cast<const Half*>(scales);
    if constexpr (L.scales == QuantScales::halves) {
      return {load(halves + sub * 16), L.minimum ? load(halves + (L.step / 32 + sub) * 16) : zero()};
    }
    const F16 outer = load(halves + 128);
    if constexpr (L.scales == QuantScales::super_16) {
      return {outer * to_float(load_i8(scales + 2 * sub * 16)), outer * to_float(load_i8(scales + (2 * sub + 1) * 16))};
    }
    return {outer * to_float(load_u8(scales + sub * 16)),
            neg(load(halves + 144) * to_float(load_u8(scales + (8 + sub) * 16)))};
  }
};

// NB of the blocks of a tile.
template <QuantLayout L, int MR, int NB, int TileBlocks>
struct QuantTile {
  using Row = QuantRow<L>;
  static constexpr size_t kStepBytes = L.step_bytes();
  static constexpr size_t kScales = L.low_bytes() + L.high_bytes();

  const std::byte* w[NB];
  const std::byte* x;
  float* acc;

  const Row& row(int r) const { return *reinterpret_cast<const Row*>(x + static_cast<size_t>(r) * sizeof(Row)); }
  float* at(int r, int b) const { return acc + (r * TileBlocks + b) * kBlockColumns; }

  template <int W>
  __attribute__((always_inline)) inline void word(I16 (&sum)[MR][NB], int sub) const {
    Words weight[NB];
    ATB_QUANT_UNROLL for (int b = 0; b < NB; ++b) weight[b] = words<L.bits>(weight_word<L, W>(w[b], sub));
    ATB_QUANT_UNROLL for (int r = 0; r < MR; ++r) {
      const Value value = broadcast(row(r).q + sub * 32 + W * 4);
      ATB_QUANT_UNROLL for (int b = 0; b < NB; ++b) sum[r][b] = dot(sum[r][b], weight[b], value);
    }
  }

#if defined(ATB_ROW_PAIRS)
  // The words W and W + 1 of rows in pairs.
  template <int W>
  __attribute__((always_inline)) inline void two_words(PairSums (&sum)[MR / 2][NB], int sub) const {
    PairWords weight[NB];
    ATB_QUANT_UNROLL for (int b = 0; b < NB; ++b) {
      weight[b] = pair_words(weight_word<L, W>(w[b], sub), weight_word<L, W + 1>(w[b], sub));
    }
    ATB_QUANT_UNROLL for (int r = 0; r < MR; r += 2) {
      const int at = sub * 32 + W * 4;
      ATB_QUANT_UNROLL for (int b = 0; b < NB; ++b) {
        sum[r / 2][b] = dot(sum[r / 2][b], weight[b], row(r).q + at, row(r + 1).q + at);
      }
    }
  }

  template <int Begin, int Count>
  __attribute__((always_inline)) inline void words_of_pairs(I16 (&sum)[MR][NB], int sub) const {
    PairSums pairs[MR / 2][NB];
    ATB_QUANT_UNROLL for (int r = 0; r < MR; r += 2) {
      ATB_QUANT_UNROLL for (int b = 0; b < NB; ++b) pairs[r / 2][b] = pair_sums(sum[r][b], sum[r + 1][b]);
    }
    two_words<Begin>(pairs, sub);
    two_words<Begin + 2>(pairs, sub);
    if constexpr (Count == 8) {
      two_words<Begin + 4>(pairs, sub);
      two_words<Begin + 6>(pairs, sub);
    }
    ATB_QUANT_UNROLL for (int r = 0; r < MR; r += 2) {
      ATB_QUANT_UNROLL for (int b = 0; b < NB; ++b) {
        sum[r][b] = first_of(pairs[r / 2][b]);
        sum[r + 1][b] = second_of(pairs[r / 2][b]);
      }
    }
  }
#endif

  // Adds the products of the words [Begin, Begin + 4) or all eight.
  template <int Begin, int Count>
  __attribute__((always_inline)) inline void words_of(I16 (&sum)[MR][NB], int sub) const {
#if defined(ATB_ROW_PAIRS)
    if constexpr (MR % 2 == 0) return words_of_pairs<Begin, Count>(sum, sub);
#endif
    word<Begin>(sum, sub);
    word<Begin + 1>(sum, sub);
    word<Begin + 2>(sum, sub);
    word<Begin + 3>(sum, sub);
    if constexpr (Count == 8) words_of<Begin + 4, 4>(sum, sub);
  }

  // Sums that begin with what the zero of the weights takes off.
  __attribute__((always_inline)) inline void begin(I16 (&sum)[MR][NB], int group) const {
    constexpr int kZero = L.zero - kWordZero<L.bits>;
    ATB_QUANT_UNROLL for (int r = 0; r < MR; ++r) {
      static_assert(kZero == 0 || !Row::kHasMinima);
      I16 start = int_set1(0);
      if constexpr (kZero != 0) start = int_set1(-kZero * row(r).sum[group]);
      ATB_QUANT_UNROLL for (int b = 0; b < NB; ++b) sum[r][b] = start;
    }
  }

  // Adds what the weights of a group give, times the scale of the row's integers.
  void add(int r, int b, const F16& value, float own) const { store(at(r, b), fma(value, set1(own), load(at(r, b)))); }
  F16 total(int r, int sub) const { return set1(row(r).sum[sub]); }

  __attribute__((always_inline)) inline void channels() const {
    I16 sum[MR][NB];
    begin(sum, 0);
    words_of<0, 8>(sum, 0);
    words_of<0, 8>(sum, 1);
    if constexpr (L.scales == QuantScales::integers) {
      ATB_QUANT_UNROLL for (int r = 0; r < MR; ++r) {
        ATB_QUANT_UNROLL for (int b = 0; b < NB; ++b) store_ints(at(r, b), load_ints(at(r, b)) + sum[r][b]);
      }
      return;
    }
    ATB_QUANT_UNROLL for (int r = 0; r < MR; ++r) {
      ATB_QUANT_UNROLL for (int b = 0; b < NB; ++b) add(r, b, to_float(sum[r][b]), row(r).scale[0]);
    }
  }

  __attribute__((always_inline)) inline void halves(int sub) const {
    I16 sum[MR][NB];
    begin(sum, sub);
    words_of<0, 8>(sum, sub);
    ATB_QUANT_UNROLL for (int b = 0; b < NB; ++b) {
      const auto of = GroupScales<L>::at(w[b] + kScales, sub);
      ATB_QUANT_UNROLL for (int r = 0; r < MR; ++r) {
        F16 value = to_float(sum[r][b]) * of.scale;
        if constexpr (L.minimum) value = fma(total(r, sub), of.other, value);
        add(r, b, value, row(r).scale[sub]);
      }
    }
  }

  __attribute__((always_inline)) inline void super_32(int sub) const {
    I16 sum[MR][NB];
    begin(sum, sub);
    words_of<0, 8>(sum, sub);
    ATB_QUANT_UNROLL for (int b = 0; b < NB; ++b) {
      const auto of = GroupScales<L>::at(w[b] + kScales, sub);
      ATB_QUANT_UNROLL for (int r = 0; r < MR; ++r) {
        add(r, b, fma(total(r, sub), of.other, to_float(sum[r][b]) * of.scale), row(r).scale[sub]);
      }
    }
  }

  __attribute__((always_inline)) inline void super_16(int sub) const {
    I16 first[MR][NB], second[MR][NB];
    begin(first, 2 * sub);
    words_of<0, 4>(first, sub);
    begin(second, 2 * sub + 1);
    words_of<4, 4>(second, sub);
    ATB_QUANT_UNROLL for (int b = 0; b < NB; ++b) {
      const auto of = GroupScales<L>::at(w[b] + kScales, sub);
      ATB_QUANT_UNROLL for (int r = 0; r < MR; ++r) {
        add(r, b, fma(to_float(second[r][b]), of.other, to_float(first[r][b]) * of.scale), row(r).scale[sub]);
      }
    }
  }

  __attribute__((always_inline)) inline void fetch(size_t ahead, int part, int parts) const {
    constexpr int kLines = static_cast<int>(kStepBytes / 64);
    for (int line = kLines * part / parts; line < kLines * (part + 1) / parts; ++line) {
      ATB_QUANT_UNROLL for (int b = 0; b < NB; ++b) { prefetch(w[b] + static_cast<size_t>(line) * 64 + ahead); }
    }
  }

  __attribute__((always_inline)) inline void step(size_t ahead) const {
    constexpr int kSubs = Row::kWhole ? 1 : L.step / 32;
    for (int sub = 0; sub < kSubs; ++sub) {
      if (ahead > 0) fetch(ahead, sub, kSubs);
      if constexpr (Row::kWhole) channels();
      if constexpr (L.scales == QuantScales::halves) halves(sub);
      if constexpr (L.scales == QuantScales::super_32) super_32(sub);
      if constexpr (L.scales == QuantScales::super_16) super_16(sub);
    }
  }
};

template <QuantLayout L, int MR, int NB, int Together>
void multiply_quant_tile(const TileJob& job) {
  using Tile = QuantTile<L, MR, Together, NB>;
  if (job.first) std::memset(job.acc, 0, sizeof(float) * MR * NB * kBlockColumns);
  const std::byte* w = job.w;
  const std::byte* x = job.x;
  const std::byte* fetch = job.prefetch;
  for (int64_t s = 0; s < job.steps; ++s) {
    for (int first = 0; first < NB; first += Together) {
      Tile tile{{}, x, job.acc + first * kBlockColumns};
      for (int b = 0; b < Together; ++b) tile.w[b] = w + static_cast<size_t>(first + b) * Tile::kStepBytes;
      tile.step(job.ahead);
    }
    if (job.ahead == 0) {
      for (int i = 0; i < job.prefetch_lines; ++i, fetch += 64) prefetch(fetch);
    }
    x += MR * sizeof(typename Tile::Row);
    w += kPairBlocks * Tile::kStepBytes;
  }
}

// What waits for memory reads block after block (see linear_vector-inl.h): one row, and several with weights of 8 bits
// that are used once. Otherwise weights of both blocks share the activations: fewer bits are more arithmetic.
template <QuantLayout L, int MR, int NB>
void multiply_quant_tile(const TileJob& job) {
  if constexpr (MR > 1 && L.bits == 8) {
    if (job.ahead > 0) return multiply_quant_tile<L, MR, NB, 1>(job);
  }
  multiply_quant_tile<L, MR, NB, MR == 1 ? 1 : NB>(job);
}

// What the tile shapes of levels have in common that keep sums in vector registers.
struct VectorShapes {
  static constexpr int kRowUnit = 1;
  static void begin(int) {}
  static void end() {}
};

}  // namespace
}  // namespace atb_core::cpu::ATB_CPU_LEVEL
