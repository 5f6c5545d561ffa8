// SPDX-License-Identifier: Apache-2.0
// Locates keys and values, and converts a tile of them to float32.
#pragma once

#include <type_traits>

#include "cpu/kernels/attention.h"

namespace atb_core::cpu::ATB_CPU_LEVEL {

// Keys and values of one kv head: row `place` is at keys + place * key_stride. The places of a sequence's positions
// are consecutive from `first_place`, or go by a block table.
template <typename T>
struct KeyValues {
  const T* keys;
  const T* values;
  int64_t key_stride, value_stride;
  int64_t d, dv;
  int64_t first_place;
  const int32_t* table;  // none: consecutive
  int64_t block_size, blocks;
};

// Fills places[0, n) for the positions from `start`. Returns false and reports an error if a block is outside of the
// cache.
template <typename T>
inline bool find_places(const KeyValues<T>& kv, int64_t start, int n, int64_t* places, const Worker& worker) {
  if (kv.table == nullptr) {
    for (int i = 0; i < n; ++i) places[i] = kv.first_place + start + i;
    return true;
  }
  int64_t index = start / kv.block_size, offset = start % kv.block_size;
  for (int i = 0; i < n; ++index, offset = 0) {
    const int64_t block = kv.table[index];
    if (block < 0 || block >= kv.blocks) {
      worker.error->report("block table names a block outside the key/value cache", index, block, kv.blocks);
      return false;
    }
    for (; i < n && offset < kv.block_size; ++i, ++offset) places[i] = block * kv.block_size + offset;
  }
  return true;
}

// Sixteen elements of each of up to sixteen rows, as columns of `out` (kTile apart). Rows from n on give zeros.
template <typename T>
inline void load_columns(const KeyValues<T>& kv, const int64_t* places, int n, int64_t at, float* out) {
  F16 block[16];
  for (int i = 0; i < 16; ++i)
    block[i] = i < n ? load_up_to_16(kv.keys + places[i] * kv.key_stride + at, kv.d - at) : zero();
  transpose(block);
  for (int i = 0; i < 16; ++i) store(out + (at + i) * kTile, block[i]);
}

// The same for 32 bf16 of each row: pairs are transposed as one and taken apart afterwards.
inline void load_column_pairs(const KeyValues<Bf16>& kv, const int64_t* places, int n, int64_t at, float* out) {
  F16 block[16];
  for (int i = 0; i < 16; ++i)
    block[i] = i < n ? load(reinterpret_cast<const float*>(kv.keys + places[i] * kv.key_stride + at)) : zero();
  transpose(block);
  for (int i = 0; i < 16; ++i) {
    store(out + (at + 2 * i) * kTile, low_bf16(block[i]));
    store(out + (at + 2 * i + 1) * kTile, high_bf16(block[i]));
  }
}

// Prefetches a row of the next tile into the second level of cache.
template <typename T>
inline void prefetch_row(const T* row, int64_t n) {
  constexpr int64_t kLine = 64 / sizeof(T);
  for (int64_t i = 0; i < n; i += kLine) __builtin_prefetch(row + i, 0, 2);
}

// The places of a tile's positions.
struct Places {
  const int64_t* at;
  int n;
};

// keys [padded(d)][kTile] of `now`, asking for the keys and values of `next`.
template <typename T>
inline void load_keys(const KeyValues<T>& kv, Places now, Places next, float* keys) {
  for (int i = 0; i < now.n; i += 16) {
    for (int j = i; j < i + 16 && j < next.n; ++j) {
      prefetch_row(kv.keys + next.at[j] * kv.key_stride, kv.d);
      prefetch_row(kv.values + next.at[j] * kv.value_stride, kv.dv);
    }
    int64_t at = 0;
    if constexpr (std::is_same_v<T, Bf16>) {
      for (; at + 32 <= kv.d; at += 32) load_column_pairs(kv, now.at + i, now.n - i, at, keys + i);
    }
    for (; at < kv.d; at += 16) load_columns(kv, now.at + i, now.n - i, at, keys + i);
  }
}

// values [kTile][padded(dv)] of `now`.
template <typename T>
inline void load_values(const KeyValues<T>& kv, Places now, float* values) {
  const int64_t width = padded(kv.dv);
  for (int i = 0; i < now.n; ++i) {
    const T* row = kv.values + now.at[i] * kv.value_stride;
    for (int64_t c = 0; c < kv.dv; c += 16) store(values + i * width + c, load_up_to_16(row + c, kv.dv - c));
  }
}

}  // namespace atb_core::cpu::ATB_CPU_LEVEL
