// SPDX-License-Identifier: Apache-2.0
// A cache of bf16 that is packed as attention multiplies it. Each kTile slots hold, head after head, a tile of keys as
// pack_keys() makes it, or of values as pack_values() does; it takes as much memory as the rows would.
#pragma once

#include <cstring>

#include "cpu/kernels/attention_pack-inl.h"

namespace atb_core::cpu::ATB_CPU_LEVEL {

// The positions, of a step, in the halves of a word of packed values.
struct WordPositions {
  int low, high;
};
inline WordPositions positions_of(const Products& products, int word) {
  if (products.packing != Packing::chains) return {2 * word, 2 * word + 1};
  const int high = word / 2 * 4 + word % 2;
  return {high + 2, high};
}

// Returns where the column of a position begins in a packed tile of keys: a word in each of 16 lines of a step.
inline size_t packed_key_offset(const Products& products, int64_t d, int64_t position) {
  return static_cast<size_t>(position / 32) * products.pair_bytes(d) +
         static_cast<size_t>(position / 16 % 2) * products.block_step() +
         static_cast<size_t>(position % 16) * sizeof(float);
}

// Returns where the word of a position and of column c, a multiple of 16, is in a packed tile of values: half of one line.
inline size_t packed_value_offset(const Products& products, int64_t c, int64_t position) {
  const int64_t at = position % kStep, word = products.packing == Packing::chains ? at / 4 * 2 + at % 2 : at / 2;
  return static_cast<size_t>(position / kStep) * kPairBlocks * products.block_step() + static_cast<size_t>(word) * 64 +
         static_cast<size_t>(c / 32) * products.pair_bytes(kTile) +
         static_cast<size_t>(c / 16 % 2) * products.block_step();
}

// Writes the keys of one position into the packed tile of a head.
inline void write_packed_key(const Products& products, const Bf16* k, int64_t d, int64_t position, std::byte* tile) {
  std::byte* column = tile + packed_key_offset(products, d, position);
  for (int64_t i = 0; i < d; i += kStep, column += kPairBlocks * products.block_step()) {
    const F16 words = load_words(k + i);
    float each[16];
    store(each, products.packing == Packing::chains ? chain_order(words) : words);
    for (int j = 0; j < 16; ++j) std::memcpy(column + j * 64, each + j, sizeof(float));
  }
}

// The same of values.
inline void write_packed_value(const Products& products, const Bf16* v, int64_t dv, int64_t position, std::byte* tile) {
  const int at = static_cast<int>(position % kStep);
  const int word = products.packing == Packing::chains ? at / 4 * 2 + at % 2 : at / 2;
  const size_t half = positions_of(products, word).high == at ? sizeof(Bf16) : 0;
  for (int64_t c = 0; c < dv; c += 16) {
    std::byte* line = tile + packed_value_offset(products, c, position) + half;
    for (int64_t i = 0; i < 16; ++i)
      std::memcpy(line + i * static_cast<int64_t>(sizeof(float)), v + c + i, sizeof(Bf16));
  }
}

// Asks for the lines that a position's keys, or values, will be written to: with many sequences no cache has them.
inline void prefetch_packed_key(const Products& products, int64_t d, int64_t position, const std::byte* tile) {
  const std::byte* column = tile + packed_key_offset(products, d, position);
  for (int64_t i = 0; i < d; i += kStep, column += kPairBlocks * products.block_step())
    for (int j = 0; j < 16; ++j) __builtin_prefetch(column + j * 64, 1, 3);
}
inline void prefetch_packed_value(const Products& products, int64_t dv, int64_t position, const std::byte* tile) {
  for (int64_t c = 0; c < dv; c += 16) __builtin_prefetch(tile + packed_value_offset(products, c, position), 1, 3);
}

// Copies the steps of a packed tile of values that have n positions. Further positions, which may be anything, become zeros.
inline void copy_packed_values(const Products& products, const std::byte* tile, int64_t dv, int n, std::byte* dst) {
  const size_t block = products.block_step(), step = kPairBlocks * block;
  for (int s = 0; s < steps_of(n); ++s) {
    for (int word = 0; word < 16; ++word) {
      const auto [low, high] = positions_of(products, word);
      const uint32_t seen = (s * kStep + low < n ? 0xffffU : 0U) | (s * kStep + high < n ? 0xffff0000U : 0U);
      for (int64_t c = 0; c < dv; c += 16) {
        const size_t at = static_cast<size_t>(c / 32) * products.pair_bytes(kTile) + static_cast<size_t>(s) * step +
                          static_cast<size_t>(c / 16 % 2) * block + static_cast<size_t>(word) * 64;
        const auto* from = reinterpret_cast<const uint32_t*>(tile + at);
        auto* to = reinterpret_cast<uint32_t*>(dst + at);
        for (int i = 0; i < 16; ++i) to[i] = from[i] & seen;
      }
    }
  }
}

// Returns true if n slots begin with a whole tile.
inline bool begin_with_tile(const int32_t* slots, int64_t n) {
  if (n < kTile || slots[0] % kTile != 0) return false;
  for (int i = 1; i < kTile; ++i)
    if (slots[i] != slots[0] + i) return false;
  return true;
}

// The keys, or the values, of a head, and where they go.
struct PackedHead {
  const Products& products;
  KeyValues<Bf16> rows;
  bool is_key;
  Bf16* cache;
  int64_t slot_stride;  // of a slot, in elements
  const int32_t* slots;
  int64_t tokens;

  std::byte* tile(int64_t t) const {
    return reinterpret_cast<std::byte*>(cache + slots[t] / kTile * kTile * slot_stride);
  }
  void prefetch_token(int64_t t) const {
    if (t >= tokens || slots[t] < 0) return;
    if (is_key) return prefetch_packed_key(products, rows.d, slots[t] % kTile, tile(t));
    prefetch_packed_value(products, rows.dv, slots[t] % kTile, tile(t));
  }
  void write_token(int64_t t) const {
    if (is_key) return write_packed_key(products, rows.keys + t * rows.key_stride, rows.d, slots[t] % kTile, tile(t));
    write_packed_value(products, rows.values + t * rows.value_stride, rows.dv, slots[t] % kTile, tile(t));
  }
  void write_tile(int64_t t) const {
    int64_t places[kTile];
    for (int i = 0; i < kTile; ++i) places[i] = t + i;
    const Places all{places, nullptr, kTile};
    Prefetch<Bf16> none(rows, 1, {}, 0, false);
    is_key ? pack_keys<Bf16>(rows, products, all, none, tile(t))
           : pack_values<Bf16>(rows, products, all, none, tile(t));
  }
};

// Threads share the heads, whose keys and values take turns: keys take longer.
inline void write_packed_slots(const ReshapeAndCacheArgs& args, const Products& products, const Worker& worker) {
  constexpr int64_t kAhead = 2;  // tokens
  const int64_t tokens = args.k.dim(0), heads = args.k.dim(1), d = args.k.dim(2);
  const int32_t* slots = args.slots.as<int32_t>();
  const auto [begin, end] = worker.share(2 * heads);
  for (int64_t each = begin; each < end; ++each) {
    const bool is_key = each % 2 == 0;
    Bf16* cache = (is_key ? args.k_cache : args.v_cache).as<Bf16>() + each / 2 * kTile * d;
    const KeyValues<Bf16> rows = rows_of<Bf16>(args.k, args.v, heads).from_head(each / 2);
    const PackedHead head{products, rows, is_key, cache, heads * d, slots, tokens};
    for (int64_t t = 0; t < tokens; ++t) {
      if (slots[t] < 0) continue;
      if (begin_with_tile(slots + t, tokens - t)) {
        head.write_tile(t);
        t += kTile - 1;
      } else {
        head.prefetch_token(t + kAhead);
        head.write_token(t);
      }
    }
  }
}

}  // namespace atb_core::cpu::ATB_CPU_LEVEL
