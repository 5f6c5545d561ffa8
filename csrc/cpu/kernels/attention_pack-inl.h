// SPDX-License-Identifier: Apache-2.0
// Where keys and values are, and how a tile of them is packed for the kernels of linear(): keys as the weight
// [kTile positions, d], values as the weight [dv, kTile positions].
#pragma once

#include <algorithm>
#include <cmath>
#include <cstring>
#include <type_traits>

#include "cpu/kernels/attention.h"

namespace atb_core::cpu::ATB_CPU_LEVEL {

// Keys and values of one kv head: rows of d and dv elements of a type E, which is int8 for rows with scales. Positions
// follow one another from `first_place`, or go by a block table.
template <typename E>
struct KeyValues {
  const E* keys;
  const E* values;
  int64_t key_stride, value_stride;
  int64_t d, dv;
  int64_t first_place;
  const int32_t* table;  // none: consecutive
  int64_t block_size, blocks;
  Int8Layout layout;                           // of int8: the strides are 1 then
  const std::byte *key_scales, *value_scales;  // of int8: as keys and values, of this head
};

template <typename E>
inline constexpr bool kHasScales = std::is_same_v<E, int8_t>;

// The places of a tile's positions, in rows (of int8, in bytes), and the scales that int8 has.
struct Places {
  int64_t* at;
  int n;
  float *key_scales, *value_scales;
};

// Fills the places [i, end) with consecutive slots of a block.
template <typename E>
inline void set_places(const KeyValues<E>& kv, int64_t block, int64_t offset, int i, int end, Places places) {
  if constexpr (kHasScales<E>) {
    const int64_t step = kv.layout.heads * kv.layout.size;
    const int64_t scale_step = kv.layout.heads * static_cast<int64_t>(sizeof(float));
    int64_t row = kv.layout.row(block, offset), scale = kv.layout.scale(block, offset);
    for (; i < end; ++i, row += step, scale += scale_step) {
      places.at[i] = row;
      std::memcpy(places.key_scales + i, kv.key_scales + scale, sizeof(float));
      std::memcpy(places.value_scales + i, kv.value_scales + scale, sizeof(float));
    }
  } else {
    for (int64_t slot = block * kv.block_size + offset; i < end; ++i, ++slot) places.at[i] = slot;
  }
}

// Fills `places` for the positions from `start`. Returns false and reports an error if a block is outside of the cache.
template <typename E>
inline bool find_places(const KeyValues<E>& kv, int64_t start, Places places, const Worker& worker) {
  if (kv.table == nullptr) {
    set_places(kv, 0, kv.first_place + start, 0, places.n, places);
    return true;
  }
  int64_t index = start / kv.block_size, offset = start % kv.block_size;
  for (int i = 0; i < places.n; ++index, offset = 0) {
    const int64_t block = kv.table[index];
    if (block < 0 || block >= kv.blocks) {
      worker.error->report("block table names a block outside the key/value cache", index, block, kv.blocks);
      return false;
    }
    const int end = static_cast<int>(std::min<int64_t>(places.n, i + kv.block_size - offset));
    set_places(kv, block, offset, i, end, places);
    i = end;
  }
  return true;
}

// Prefetches the next tile into the second level of cache, little by little: a processor waits if it is asked for more
// lines at once than it can have under way.
template <typename E>
struct Prefetch {
  const KeyValues<E>& kv;
  Places next;
  int row = 0;  // of the keys, then of the values

  void rows(int n) {
    for (const int end = std::min(row + n, 2 * next.n); row < end; ++row) {
      if (row < next.n) {
        line_by_line(kv.keys + next.at[row] * kv.key_stride, kv.d);
      } else {
        line_by_line(kv.values + next.at[row - next.n] * kv.value_stride, kv.dv);
      }
    }
  }

 private:
  static void line_by_line(const E* p, int64_t n) {
    for (int64_t i = 0; i < n; i += 64 / static_cast<int64_t>(sizeof(E))) __builtin_prefetch(p + i, 0, 2);
  }
};

// 32 elements at p as sixteen words of bfloat16, in which integers of 8 bits are exact.
inline F16 load_words(const Bf16* p) { return load(reinterpret_cast<const float*>(p)); }
inline F16 load_words(const int8_t* p) { return join_bf16(load(p), load(p + 16)); }
// The same where only n exist.
template <typename E>
inline F16 load_words(const E* p, int64_t n) {
  if (n >= kStep) return load_words(p);
  float whole[16] = {};  // as bfloat16 is read
  if (n > 0) std::memcpy(whole, p, static_cast<size_t>(n) * sizeof(E));
  return load_words(reinterpret_cast<const E*>(whole));
}

// Stores a step of sixteen words (or half a step of floats) of sixteen positions, a column for each.
inline void store_columns(F16 (&block)[16], std::byte* dst) {
  transpose(block);
  for (int i = 0; i < 16; ++i) store(reinterpret_cast<float*>(dst + i * 64), block[i]);
}

// One step of the keys of sixteen positions, of which n exist, with up to `rest` elements.
template <bool Whole, typename E>
inline void pack_key_words(const E* keys, int64_t stride, const int64_t* places, int n, int64_t rest, bool chains,
                           std::byte* dst) {
  F16 columns[16];
  for (int i = 0; i < 16; ++i) {
    const E* row = keys + (Whole || i < n ? places[i] : 0) * stride;
    columns[i] = Whole ? load_words(row) : i < n ? load_words(row, rest) : zero();
    if (chains) columns[i] = chain_order(columns[i]);
  }
  store_columns(columns, dst);
}

// The keys of the tile; those of positions from n on are zeros.
template <typename T, typename E>
inline void pack_keys(const KeyValues<E>& kv, const Products& products, Places now, Prefetch<E>& prefetch,
                      std::byte* dst) {
  const size_t pair = products.pair_bytes(kv.d), block_step = products.block_step();
  for (int first = 0; first < now.n; first += 16) {
    prefetch.rows(12);
    std::byte* block = dst + static_cast<size_t>(first / 32) * pair + static_cast<size_t>(first / 16 % 2) * block_step;
    const int64_t* places = now.at + first;
    const int n = now.n - first;
    for (int64_t k = 0; k < kv.d; k += kStep, block += kPairBlocks * block_step) {
      if constexpr (std::is_same_v<T, Bf16>) {
        const bool chains = products.packing == Packing::chains;
        if (n >= 16 && k + kStep <= kv.d) {
          pack_key_words<true>(kv.keys + k, kv.key_stride, places, n, kStep, chains, block);
        } else {
          pack_key_words<false>(kv.keys + k, kv.key_stride, places, n, kv.d - k, chains, block);
        }
      } else {
        for (int64_t half = 0; half < kStep; half += 16) {
          const int64_t rest = kv.d - k - half;
          F16 columns[16];
          for (int i = 0; i < 16; ++i)
            columns[i] =
                i < n && rest > 0 ? load_up_to_16(kv.keys + places[i] * kv.key_stride + k + half, rest) : zero();
          store_columns(columns, block + half * 64);
        }
      }
    }
  }
}

// Two rows of values (or none) as words: the low half of each is of one position, the high half of another.
template <bool Whole, typename E>
inline void pack_value_words(const E* low, const E* high, int64_t dv, size_t pair, size_t block_step, std::byte* dst) {
  const auto words = [&](const E* row, int64_t c) {
    if constexpr (Whole) return load_words(row + c);
    return row != nullptr ? load_words(row + c, dv - c) : zero();
  };
  for (int64_t c = 0; c < dv; c += kStep, dst += pair) {
    F16 left, right;
    if constexpr (Whole && kHasScales<E>) {
      left = pair_bf16(load(low + c), load(high + c));
      right = pair_bf16(load(low + c + 16), load(high + c + 16));
    } else {
      interleave(words(low, c), words(high, c), left, right);
    }
    store(reinterpret_cast<float*>(dst), left);
    store(reinterpret_cast<float*>(dst + block_step), right);
  }
}

// The values of the tile; those of positions from n on are zeros.
template <typename T, typename E>
inline void pack_values(const KeyValues<E>& kv, const Products& products, Places now, Prefetch<E>& prefetch,
                        std::byte* dst) {
  const size_t pair = products.pair_bytes(kTile), block_step = products.block_step();
  for (int first = 0; first < now.n; first += kStep, dst += kPairBlocks * block_step) {
    const auto row = [&](int i) {
      return first + i < now.n ? kv.values + now.at[first + i] * kv.value_stride : nullptr;
    };
    if constexpr (std::is_same_v<T, Bf16>) {
      const bool chains = products.packing == Packing::chains;
      const bool whole = first + kStep <= now.n && kv.dv % kStep == 0;
      for (int i = 0; i < 16; ++i) {
        prefetch.rows(1);
        const int low = chains ? i / 2 * 4 + 2 + i % 2 : 2 * i, high = chains ? low - 2 : low + 1;
        if (whole) {
          pack_value_words<true>(row(low), row(high), kv.dv, pair, block_step, dst + i * 64);
        } else {
          pack_value_words<false>(row(low), row(high), kv.dv, pair, block_step, dst + i * 64);
        }
      }
    } else {
      for (int i = 0; i < kStep; ++i) {
        prefetch.rows(1);
        for (int64_t c = 0; c < padded(kv.dv); c += 16) {
          const F16 v = row(i) != nullptr && c < kv.dv ? load_up_to_16(row(i) + c, kv.dv - c) : zero();
          store(reinterpret_cast<float*>(dst + i * 64 + static_cast<size_t>(c / 32) * pair +
                                         static_cast<size_t>(c / 16 % 2) * block_step),
                v);
        }
      }
    }
  }
}

// Returns true if the values hold neither infinities nor NaNs: then a weight of zero hides a position. Integers are
// finite; their scales are in the weights.
template <typename E>
inline bool values_are_finite(const KeyValues<E>& kv, Places now) {
  if constexpr (kHasScales<E>) return true;
  uint32_t finite = 0xffffU;
  for (int i = 0; i < now.n; ++i) {
    const E* row = kv.values + now.at[i] * kv.value_stride;
    for (int64_t c = 0; c < kv.dv; c += 16)
      finite &= to_bits(lt(abs(load_up_to_16(row + c, kv.dv - c)), set1(HUGE_VALF)));
  }
  return finite == 0xffffU;
}

}  // namespace atb_core::cpu::ATB_CPU_LEVEL
