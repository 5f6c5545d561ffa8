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

// Keys and values from one kv head on: rows of d and dv elements of a type E, which is int8 for rows with scales, or
// packed tiles. Positions follow one another from `first_place`, or go by a block table.
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
  // Instead of kTile rows of each position there are kTile rows' worth of each head: its tile as it is packed.
  bool packed = false;

  KeyValues from_head(int64_t head) const {
    KeyValues kv = *this;
    kv.keys += head * d * (packed ? kTile : 1);
    kv.values += head * dv * (packed ? kTile : 1);
    if (layout.heads == 0) return kv;
    kv.key_scales += head * static_cast<int64_t>(sizeof(float));
    kv.value_scales += head * static_cast<int64_t>(sizeof(float));
    return kv;
  }
};

template <typename E>
inline constexpr bool kHasScales = std::is_same_v<E, int8_t>;

// Keys and values as they are, one row after another.
template <typename E>
inline KeyValues<E> rows_of(const TensorView& keys, const TensorView& values, int64_t heads) {
  const int64_t d = keys.dim(-1), dv = values.dim(-1);
  return {keys.as<E>(), values.as<E>(), heads * d, heads * dv, d, dv, 0, nullptr, 1, 0, {}, nullptr, nullptr};
}

// The places of a tile's positions, in rows (of int8, in bytes), and of their scales, in bytes.
struct Places {
  int64_t* at;
  int64_t* scale_at;
  int n;
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
      places.scale_at[i] = scale;
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

// Copies the scales of a tile.
template <typename E>
inline void load_scales(const KeyValues<E>& kv, Places now, float* keys, float* values) {
  if constexpr (kHasScales<E>) {
    for (int i = 0; i < now.n; ++i) {
      std::memcpy(keys + i, kv.key_scales + now.scale_at[i], sizeof(float));
      std::memcpy(values + i, kv.value_scales + now.scale_at[i], sizeof(float));
    }
  }
}

// The shares of prefetching before sixteen keys are packed, or a pair of blocks is multiplied; a pair of rows of values
// has one. Each of the three loops over a few rows that weigh a tile has kRowShares for a row.
inline constexpr int64_t kShares = 12, kRowShares = 4;

// Prefetches the next tile, of some kv heads, into the second level of cache. Memory is fastest in the order of its
// addresses, and a processor waits if it is asked for more lines at once than it can have under way: 24 at a time are
// faster than single ones, and 64 cost a quarter of the time (Zen 4). Where a tile meets few rows, memory is what it waits
// for: then 4 lines at a time, asked for in all that is done with the tile, take 0.83 of the time that half of them in
// each of the two products do (Sapphire Rapids, two threads).
template <typename E>
class Prefetch {
 public:
  // Until the tile is complete, shares() will be called for about so many shares. With few rows, row() counts too.
  Prefetch(const KeyValues<E>& kv, int64_t heads, Places next, int64_t shares, bool few_rows)
      : runs_{kv.packed ? pieces_of(kv.keys, kv.key_stride, heads, kTile * kv.d, kStep * kv.d, next)
                        : run_of(kv.keys, kv.key_stride, heads * kv.d, next),
              kv.packed
                  ? pieces_of(kv.values, kv.value_stride, heads * (kv.dv / kStep), kTile * kStep, kStep * kStep, next)
                  : run_of(kv.values, kv.value_stride, heads * kv.dv, next)},
        next_(next),
        packed_(kv.packed),
        few_rows_(few_rows),
        rate_(kOne * static_cast<uint64_t>(runs_[0].all() + runs_[1].all()) / static_cast<uint64_t>(shares + 1) + 1) {}

  bool of_few_rows() const { return few_rows_; }

  // Goes on by n shares.
  void shares(uint64_t n) {
    due_ += n * rate_;
    if (due_ < (few_rows_ ? kFewLines : kLines) * kOne) return;
    fetch(static_cast<int64_t>(due_ / kOne));
    due_ %= kOne;
  }
  // Goes on while something is done with a row.
  void row() {
    if (few_rows_) shares(kRowShares);
  }
  void all() { fetch(runs_[0].all() + runs_[1].all()); }

 private:
  static constexpr uint64_t kOne = 1024, kLines = 24, kFewLines = 4;

  // Rows, or all of them as one if nothing is between them; or pieces of packed tiles, which follow each other at `stride`.
  struct Run {
    const E* data;
    int64_t stride;
    int64_t count, lines;

    int64_t all() const { return count * lines; }
  };

  static int64_t lines(int64_t size) { return (size * static_cast<int64_t>(sizeof(E)) + 63) / 64; }
  // What each step of positions has of `count` pieces of `size` elements is `step` elements.
  static Run pieces_of(const E* data, int64_t stride, int64_t count, int64_t size, int64_t step, Places next) {
    if (next.n <= 0) return {data, stride, 0, 0};
    data += next.at[0] * stride;
    if (next.n > kTile - kStep) return {data, 0, 1, lines(count * size)};
    return {data, size, count, lines(steps_of(next.n) * step)};
  }
  static Run run_of(const E* data, int64_t stride, int64_t n, Places next) {
    const int64_t last = next.n - 1;
    if (last < 0) return {data, stride, 0, 0};
    if ((next.at[last] - next.at[0]) * stride == last * n) return {data, stride, 1, lines(next.n * n)};
    return {data, stride, next.n, lines(n)};
  }

  void fetch(int64_t lines) {
    while (lines > 0 && run_ < 2) {
      const Run& run = runs_[run_];
      const auto* line = reinterpret_cast<const std::byte*>(run.data + (packed_         ? row_
                                                                        : run.count > 0 ? next_.at[row_]
                                                                                        : 0) *
                                                                           run.stride);
      const int64_t here = std::min(lines, run.lines - line_);
      for (int64_t i = line_; i < line_ + here; ++i) prefetch(line + i * 64);
      lines -= here;
      line_ += here;
      if (line_ < run.lines) return;
      line_ = 0;
      if (++row_ < run.count) continue;
      row_ = 0;
      ++run_;
    }
  }

  const Run runs_[2];  // of keys, of values
  const Places next_;
  const bool packed_, few_rows_;
  const uint64_t rate_;  // lines of a share, times kOne
  uint64_t due_ = 0;     // lines, times kOne
  int run_ = 0;
  int64_t row_ = 0, line_ = 0;
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
    prefetch.shares(kShares);
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
        if (i % 4 == 0) prefetch.shares(4);
        const int low = chains ? i / 2 * 4 + 2 + i % 2 : 2 * i, high = chains ? low - 2 : low + 1;
        if (whole) {
          pack_value_words<true>(row(low), row(high), kv.dv, pair, block_step, dst + i * 64);
        } else {
          pack_value_words<false>(row(low), row(high), kv.dv, pair, block_step, dst + i * 64);
        }
      }
    } else {
      for (int i = 0; i < kStep; ++i) {
        if (i % 8 == 0) prefetch.shares(4);
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

// Returns true if the packed values of positions [begin, end) hold neither infinities nor NaNs: then a weight of zero hides
// a position. The steps in which they begin and end are whole.
inline bool values_are_finite(const Products& products, const std::byte* packed, int64_t dv, int begin, int end) {
  constexpr uint32_t kLow = 0x7f80, kHigh = kLow << 16;  // exponents of bf16; the high one is also that of float32
  const uint32_t low = products.packing == Packing::floats ? 0 : kLow;
  const size_t step = kPairBlocks * products.block_step();
  const int64_t first = begin / kStep, count = (steps_of(end) - first) * static_cast<int64_t>(step / sizeof(uint32_t));
  packed += static_cast<size_t>(first) * step;
  uint32_t found = 0;
  for (int64_t c = 0; c < dv; c += kStep, packed += products.pair_bytes(kTile)) {
    const auto* words = reinterpret_cast<const uint32_t*>(packed);
    for (int64_t i = 0; i < count; ++i)
      found |= ((words[i] & kHigh) == kHigh ? 1U : 0U) | ((words[i] & low) == kLow ? 1U : 0U);
  }
  return found == 0;
}

}  // namespace atb_core::cpu::ATB_CPU_LEVEL
