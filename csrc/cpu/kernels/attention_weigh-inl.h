// SPDX-License-Identifier: Apache-2.0
// From the products of queries and keys to probabilities: the softmax of a tile, as attention_tile-inl.h says.
#pragma once

#include <cmath>

#include "cpu/kernels/attention_pack-inl.h"

namespace atb_core::cpu::ATB_CPU_LEVEL {

struct MaskView {
  const void* data = nullptr;  // none: no mask
  DataType dtype = DataType::f32;
  int64_t width = 0;

  F16 load_at(int64_t row, int64_t column, int64_t n) const {
    const int64_t at = row * width + column;
    if (dtype == DataType::f32) return load_up_to_16(static_cast<const float*>(data) + at, n);
    if (dtype == DataType::f16) return load_up_to_16(static_cast<const Half*>(data) + at, n);
    return load_up_to_16(static_cast<const Bf16*>(data) + at, n);
  }
  // Returns true if the mask hides all of n positions from a row.
  bool hides(int64_t row, int64_t column, int64_t n) const {
    if (data == nullptr) return false;
    for (int64_t i = 0; i < n; i += 16) {
      const uint32_t here = n - i >= 16 ? 0xffffU : (1U << (n - i)) - 1;
      if ((to_bits(eq(load_at(row, column + i, n - i), set1(-HUGE_VALF))) & here) != here) return false;
    }
    return true;
  }
};

// What happens to a score before its exponential is taken.
struct Weighing {
  float scale;
  float cap;  // 0: none
  MaskView mask;
};

// A packed tile, and the memory of a group of rows.
struct Tile {
  const std::byte *keys, *values;
  int64_t d, dv;
  int64_t start;  // the first position
  Weighing how;
  const float *key_scales, *value_scales;  // of its positions, for int8
  float* scores;                           // [blocks of positions][rows][columns of a block]; then products
  std::byte* weights;                      // the prepared probabilities, [step][row][bytes of a row]
};

// Query rows and their running state, row after row.
struct Rows {
  const std::byte* query;   // prepared, group after group: [step][row of the group][bytes of a row]
  float* output;            // [n][padded(dv)]
  float* top;               // [n]
  float* sum;               // [n][16]
  const int32_t* mask_row;  // only looked at when there is a mask
  const int32_t* depth;     // how many positions of the tile each row sees
};

// Rows [first, first + count) of an item; the memory of `stored` rows is in use, in whole row tiles.
struct Group {
  int64_t first;
  int count, stored;
};

// How a kernel takes probabilities.
enum class WeightForm { floats, pairs, chains };

// Two vectors of probabilities, a step, as the kernel takes them.
template <WeightForm form>
inline void store_weights(F16 a, F16 b, std::byte* dst) {
  float* out = reinterpret_cast<float*>(dst);
  if constexpr (form == WeightForm::floats) {
    store(out, a);
    store(out + 16, b);
    return;
  }
  const F16 words = join_bf16(a, b);
  store(out, form == WeightForm::chains ? chain_order(words) : words);
}

// Calls f(std::integral_constant of the form).
template <typename F>
inline void with_weight_form(const Products& products, F f) {
  using enum WeightForm;
  if (products.kernel->row_bytes == 2 * 64) return f(std::integral_constant<WeightForm, floats>());
  if (products.packing == Packing::chains) return f(std::integral_constant<WeightForm, chains>());
  f(std::integral_constant<WeightForm, pairs>());
}

inline constexpr int kTileVectors = kTile / 16;

// The scores of a row, a vector of a tile's positions at a time.
struct ScoreRow {
  float* data;
  const int64_t* offsets;  // of each vector
  float* at(int i) const { return data + offsets[i]; }
};

// Returns vector i of a row's scores; those of positions from n on are -inf.
template <bool Whole>
inline F16 visible(ScoreRow scores, int i, int n) {
  const int here = n - 16 * i;
  if (Whole || here >= 16) return load(scores.at(i));
  return here > 0 ? select(first(here), load(scores.at(i)), set1(-HUGE_VALF)) : set1(-HUGE_VALF);
}

// Returns the maxima of every sixteenth score of a row.
template <bool Whole>
inline F16 maxima(ScoreRow scores, int n) {
  F16 most = visible<Whole>(scores, 0, n);
#pragma GCC unroll 4
  for (int i = 1; i < kTileVectors; ++i)
    if (Whole || n > 16 * i) most = max(most, visible<Whole>(scores, i, n));
  return most;
}

// Turns the products of a row into what their exponentials are taken of, in place; returns maxima as maxima() does.
template <bool Scaled>
inline F16 weigh_row(const Tile& tile, ScoreRow scores, int n, int64_t mask_row) {
  const Weighing& how = tile.how;
  F16 most = set1(-HUGE_VALF);
  for (int i = 0; 16 * i < n; ++i) {
    const int here = n - 16 * i;
    F16 v = load(scores.at(i));
    if constexpr (Scaled) v = v * load(tile.key_scales + 16 * i);
    v = v * set1(how.scale);
    if (how.cap != 0.0F) v = tanh(v / set1(how.cap)) * set1(how.cap);
    if (how.mask.data != nullptr) v = v + how.mask.load_at(mask_row, tile.start + 16 * i, here);
    if (here < 16) v = select(first(here), v, set1(-HUGE_VALF));
    store(scores.at(i), v);
    most = max(most, v);
  }
  return most;
}

// A row's scores and what is subtracted from them: their maximum; in bf16, the shift of exp2_to_bf16().
struct Exponents {
  ScoreRow scores;
  int n;
  F16 shift;
};

// Writes the prepared probabilities of a row in bf16, `steps` steps of them, and returns their sums.
template <WeightForm form, bool Whole>
inline F16 exponentiate_in_bf16(const Exponents& row, F16 factor, int steps, std::byte* weights, size_t stride) {
  F16 total = zero(), v[kTileVectors];
#pragma GCC unroll 4
  for (int i = 0; i < kTileVectors; ++i) v[i] = exp2_to_bf16(visible<Whole>(row.scores, i, row.n), factor, row.shift);
#pragma GCC unroll 4
  for (const F16& each : v) total = total + each;
#pragma GCC unroll 2
  for (int i = 0; i < kTileVectors / 2; ++i)
    if (Whole || steps > i) store_weights<form>(v[2 * i], v[2 * i + 1], weights + static_cast<size_t>(i) * stride);
  return total;
}

// The same for other types and for int8.
template <typename T, bool Scaled, WeightForm form>
inline F16 exponentiate(const Tile& tile, const Exponents& row, int steps, std::byte* weights, size_t stride) {
  F16 total = zero(), v[kTileVectors];
  for (int i = 0; i < kTileVectors; ++i) {
    v[i] = exp_of_nonpositive(visible<false>(row.scores, i, row.n) - row.shift);
    total = total + v[i];
    if constexpr (!Scaled) continue;
    // A scale may be infinite where the row sees nothing.
    v[i] = row.n > 16 * i ? select(first(row.n - 16 * i), v[i] * load(tile.value_scales + 16 * i), zero()) : zero();
    if constexpr (std::is_same_v<T, Bf16>) v[i] = rounded_to_bf16(v[i]);
  }
  for (int i = 0; i < kTileVectors / 2; ++i)
    if (steps > i) store_weights<form>(v[2 * i], v[2 * i + 1], weights + static_cast<size_t>(i) * stride);
  return total;
}

// The factors of the state and of the tile, and the new maximum and sums, of n <= 16 rows at once.
inline void merge_sums(float* top, float* sum, const float* tile_top, const float* tile_sum, int n, float* keep,
                       float* take) {
  const F16 before = load_n(top, n), now = load(tile_top);
  const M16 unseen = eq(now, set1(-HUGE_VALF));
  const F16 after = max(before, now);
  store(keep, select(unseen, set1(1.0F), exp_of_nonpositive(before - after)));
  store(take, select(unseen, zero(), exp_of_nonpositive(now - after)));
  store_n(top, after, n);
  for (int r = 0; r < n; ++r)
    store(sum + 16 * r, fma(load(tile_sum + 16 * r), set1(take[r]), load(sum + 16 * r) * set1(keep[r])));
}

// A group of rows while a tile is weighed for it.
template <typename T, bool Scaled>
struct WeighedGroup {
  static constexpr bool kInBf16 = std::is_same_v<T, Bf16> && !Scaled;

  const Products& products;
  const Tile& tile;
  const int32_t* depths;    // of its rows
  const int32_t* mask_row;  // of its rows
  Group group;
  int64_t columns;  // of a block of scores
  bool whole;       // each row sees all of the tile
  int64_t offsets[kTileVectors];
  float tops[kGroupRows], shifts[kGroupRows], sums[kGroupRows * 16];

  WeighedGroup(const Products& of, const Tile& scores, const Rows& rows, Group at, int64_t block_columns)
      : products(of),
        tile(scores),
        depths(rows.depth + at.first),
        mask_row(rows.mask_row + at.first),
        group(at),
        columns(block_columns),
        whole(*std::min_element(depths, depths + at.count) == kTile) {
    // Divisions for each row would take as long as its scores.
    for (int i = 0; i < kTileVectors; ++i) offsets[i] = 16 * i / columns * group.stored * columns + 16 * i % columns;
  }

  // Returns true if exp2_to_bf16() multiplies by the scale.
  bool raw() const { return kInBf16 && tile.how.cap == 0.0F && tile.how.mask.data == nullptr && tile.how.scale > 0.0F; }
  F16 factor() const { return set1(raw() ? tile.how.scale * kLog2E : kLog2E); }
  ScoreRow scores(int r) const { return {tile.scores + r * columns, offsets}; }

  F16 maxima_of(int r) const {
    if (!raw()) return weigh_row<Scaled>(tile, scores(r), depths[r], tile.how.mask.data != nullptr ? mask_row[r] : 0);
    return whole ? maxima<true>(scores(r), kTile) : maxima<false>(scores(r), depths[r]);
  }

  // Returns the maxima of n <= 16 rows from `first_row` on.
  template <typename E>
  F16 tops_of(int first_row, int n, Prefetch<E>& prefetch) const {
    if (n < 16) {
      float each[16] = {};
      for (int i = 0; i < n; ++i) {
        prefetch.row();
        each[i] = horizontal_max(maxima_of(first_row + i));
      }
      return load(each);
    }
    F16 most[16];
    for (int i = 0; i < 16; ++i) {
      prefetch.row();
      most[i] = maxima_of(first_row + i);
    }
    return max_of_each(most);
  }

  // Finds the maxima, for which scores are weighed.
  template <typename E>
  void find_tops(Prefetch<E>& prefetch) {
    const F16 nothing = set1(-HUGE_VALF), scale = set1(raw() ? tile.how.scale : 1.0F);
    for (int first_row = 0; first_row < group.count; first_row += 16) {
      const F16 top = tops_of(first_row, std::min(16, group.count - first_row), prefetch);
      // Scores of -inf alone must not give -inf - -inf.
      const F16 finite = select(eq(top, nothing), zero(), top);
      store(shifts + first_row, kInBf16 ? fma(finite, neg(factor()), set1(-0.5F)) : finite);
      store(tops + first_row, top * scale);
    }
  }

  // Writes the probabilities, `steps` steps of them, and their sums.
  template <typename E>
  void exponentiate_rows(int steps, Prefetch<E>& prefetch) {
    with_weight_form(products, [&](auto form) {
      const size_t row_bytes = products.kernel->row_bytes, stride = static_cast<size_t>(group.stored) * row_bytes;
      const F16 by = factor();
      std::byte* weights = tile.weights;
      for (int r = 0; r < group.count; ++r, weights += row_bytes) {
        prefetch.row();
        const Exponents row{scores(r), depths[r], set1(shifts[r])};
        F16 total;
        if constexpr (!kInBf16) {
          total = exponentiate<T, Scaled, form()>(tile, row, steps, weights, stride);
        } else if (whole) {
          total = exponentiate_in_bf16<form(), true>(row, by, steps, weights, stride);
        } else {
          total = exponentiate_in_bf16<form(), false>(row, by, steps, weights, stride);
        }
        store(sums + 16 * r, total);
      }
    });
  }
};

// Turns the scores of a group into probabilities, `steps` steps of them, and merges its maxima and sums; gives the factors
// of the outputs.
template <typename T, bool Scaled, typename E>
inline void weigh_group(const Products& products, const Tile& tile, const Rows& rows, Group group, int steps,
                        int64_t columns, float* keep, float* take, Prefetch<E>& prefetch) {
  WeighedGroup<T, Scaled> weighed(products, tile, rows, group, columns);
  // Two loops: a row's exponentials wait for its maximum, but not for those of the rows before it.
  weighed.find_tops(prefetch);
  weighed.exponentiate_rows(steps, prefetch);
  for (int r = 0; r < group.count; r += 16) {
    const int n = std::min(16, group.count - r);
    merge_sums(rows.top + group.first + r, rows.sum + 16 * (group.first + r), weighed.tops + r, weighed.sums + 16 * r,
               n, keep + r, take + r);
  }
}

}  // namespace atb_core::cpu::ATB_CPU_LEVEL
