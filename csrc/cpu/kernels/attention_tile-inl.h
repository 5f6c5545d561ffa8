// SPDX-License-Identifier: Apache-2.0
// One tile of keys and values against some query rows: the only attention arithmetic there is. Prefill, decoding and
// everything between call it, so a row gets the same bits wherever it is computed:
//   score(t) = FMA chain over the head size from 0, then * scale, then + mask;
//   m = max, p(t) = exp(score(t) - m), l = sum of p (lane j: t = j, j+16, ...; then the tree);
//   o(c) = FMA chain over the visible t, ascending, of p(t) * v(t, c) from 0;
//   state: M' = max(M, m), a = exp(M - M'), b = exp(m - M'), L = fma(l, b, L * a), O = fma(o, b, O * a).
// A position that a row does not see takes no part in any of these.
#pragma once

#include <cmath>

#include "cpu/kernels/attention.h"

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
};

// What happens to a score before its exponential is taken.
struct Weighing {
  float scale;
  MaskView mask;
};

// The values of a tile in float32, [kTile][padded(dv)]: worth making when many rows use them.
struct ScratchValues {
  const float* data;
  int64_t width;
  F16 at(int64_t position, int64_t column) const { return load(data + position * width + column); }
};

// The values of a tile where they are. Only for head sizes of whole vectors.
template <typename T>
struct PlacedValues {
  const T* data;
  const int64_t* places;
  int64_t stride;
  F16 at(int64_t position, int64_t column) const { return load(data + places[position] * stride + column); }
};

// A tile: keys in float32, [d][kTile].
template <typename V>
struct Tile {
  const float* keys;
  V values;
  int64_t d, value_width;
  int64_t start;  // the first position
  Weighing how;
};

// Query rows and their running state, row after row.
struct Rows {
  const float* query;  // [n][query_width]
  float* output;       // [n][value_width]
  float* top;          // [n]
  float* sum;
  int64_t query_width;
  const int32_t* visible;   // how many positions each row sees, from 0; ascending
  const int32_t* mask_row;  // only looked at when there is a mask
};

// acc[r][c] = chain over k in [0, depth) of a[r][k] * b(k, c), where b gives vectors.
template <int R, int C, typename B>
inline void multiply(const float* a, int64_t a_width, int64_t depth, B b, F16 (&acc)[R][C]) {
#pragma GCC unroll 8
  for (int r = 0; r < R; ++r)
#pragma GCC unroll 4
    for (int c = 0; c < C; ++c) acc[r][c] = zero();
  for (int64_t k = 0; k < depth; ++k) {
    F16 column[C];
#pragma GCC unroll 4
    for (int c = 0; c < C; ++c) column[c] = b(k, 16 * c);
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r) {
      const F16 element = set1(a[r * a_width + k]);
#pragma GCC unroll 4
      for (int c = 0; c < C; ++c) acc[r][c] = fma(element, column[c], acc[r][c]);
    }
  }
}

// Continues the chains of the rows that see more positions than the first row does.
template <int R, int C, typename B>
inline void multiply_ragged(const float* a, int64_t a_width, const int (&depth)[R], B b, F16 (&acc)[R][C]) {
  for (int k = depth[0]; k < depth[R - 1]; ++k) {
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r) {
      if (k >= depth[r]) continue;
      const F16 element = set1(a[r * a_width + k]);
#pragma GCC unroll 4
      for (int c = 0; c < C; ++c) acc[r][c] = fma(element, b(k, 16 * c), acc[r][c]);
    }
  }
}

template <int R, int C>
inline void score_columns(const float* keys, int64_t d, const float* query, int64_t query_width, float* scores) {
  F16 acc[R][C];
  multiply<R, C>(query, query_width, d, [=](int64_t k, int64_t c) { return load(keys + k * kTile + c); }, acc);
#pragma GCC unroll 8
  for (int r = 0; r < R; ++r)
#pragma GCC unroll 4
    for (int c = 0; c < C; ++c) store(scores + r * kTile + 16 * c, acc[r][c]);
}

// Scores of R rows for the first `positions` of the tile (and up to the next whole vector).
template <int R>
inline void scores_of(const float* keys, int64_t d, const float* query, int64_t query_width, int positions,
                      float* scores) {
  const int vectors = (positions + 15) / 16;
  int done = 0;
  if constexpr (kBlockCols >= 4) {
    if (vectors > 2) {
      score_columns<R, 4>(keys, d, query, query_width, scores);
      done = 4;
    }
  }
  for (; done < vectors; ++done) score_columns<R, 1>(keys + 16 * done, d, query, query_width, scores + 16 * done);
}

// Turns a row's scores into exponentials; gives their maximum and sum. Only the first n positions count.
inline void softmax_scores(const Weighing& how, int64_t start, float* scores, int n, int64_t mask_row, float* top,
                           float* sum) {
  const F16 scale = set1(how.scale), nothing = set1(-HUGE_VALF);
  F16 v[kTile / 16];
  F16 largest = nothing;
#pragma GCC unroll 4
  for (int i = 0; i < kTile / 16; ++i) {
    const int here = n - 16 * i;
    v[i] = nothing;
    if (here <= 0) continue;
    v[i] = load(scores + 16 * i) * scale;
    if (how.mask.data != nullptr) v[i] = v[i] + how.mask.load_at(mask_row, start + 16 * i, here);
    if (here < 16) v[i] = select(first(here), v[i], nothing);
    largest = max(largest, v[i]);
  }
  *top = horizontal_max(largest);
  // A tile that the mask hides altogether must not give -inf - -inf.
  const F16 base = set1(*top == -HUGE_VALF ? 0.0F : *top);
  F16 total = zero();
#pragma GCC unroll 4
  for (int i = 0; i < kTile / 16; ++i) {
    if (n - 16 * i <= 0) continue;
    const F16 e = exp_of_nonpositive(v[i] - base);
    store(scores + 16 * i, e);
    total = total + e;
  }
  *sum = horizontal_sum(total);
}

template <int R, int C, typename V>
inline void output_columns(const Tile<V>& tile, const float* p, const int (&depth)[R], int64_t column, const Rows& rows,
                           int64_t row, const float* keep, const float* take) {
  F16 acc[R][C];
  const auto values = [&](int64_t k, int64_t c) { return tile.values.at(k, column + c); };
  multiply<R, C>(p, kTile, depth[0], values, acc);
  if (depth[R - 1] != depth[0]) multiply_ragged<R, C>(p, kTile, depth, values, acc);
#pragma GCC unroll 8
  for (int r = 0; r < R; ++r) {
    float* out = rows.output + (row + r) * tile.value_width + column;
    const F16 a = set1(keep[r]), b = set1(take[r]);
#pragma GCC unroll 4
    for (int c = 0; c < C; ++c) store(out + 16 * c, fma(acc[r][c], b, load(out + 16 * c) * a));
  }
}

// The factors of the state and of the tile, and the new maximum and sum, of R <= 16 rows at once.
inline void merge_sums(float* top, float* sum, const float* tile_top, const float* tile_sum, int n, float* keep,
                       float* take) {
  const F16 before = load_n(top, n), now = load(tile_top);
  const M16 unseen = eq(now, set1(-HUGE_VALF));
  const F16 after = max(before, now);
  const F16 a = select(unseen, set1(1.0F), exp_of_nonpositive(before - after));
  const F16 b = select(unseen, zero(), exp_of_nonpositive(now - after));
  store_n(top, after, n);
  store_n(sum, fma(load(tile_sum), b, load_n(sum, n) * a), n);
  store(keep, a);
  store(take, b);
}

// The tile against rows [row, row + R).
template <int R, typename V>
inline void tile_rows(const Tile<V>& tile, const Rows& rows, int64_t row, float* scores) {
  int depth[R];
  for (int r = 0; r < R; ++r) {
    const int64_t seen = rows.visible[row + r] - tile.start;
    depth[r] = static_cast<int>(seen < 0 ? 0 : seen > kTile ? kTile : seen);
  }
  if (depth[R - 1] == 0) return;
  scores_of<R>(tile.keys, tile.d, rows.query + row * rows.query_width, rows.query_width, depth[R - 1], scores);
  float tile_top[16], tile_sum[16], keep[16], take[16];
  for (int r = 0; r < 16; ++r) {
    tile_top[r] = -HUGE_VALF;
    tile_sum[r] = 0.0F;
  }
  for (int r = 0; r < R; ++r) {
    const int64_t mask_row = tile.how.mask.data != nullptr ? rows.mask_row[row + r] : 0;
    softmax_scores(tile.how, tile.start, scores + r * kTile, depth[r], mask_row, tile_top + r, tile_sum + r);
  }
  merge_sums(rows.top + row, rows.sum + row, tile_top, tile_sum, R, keep, take);
  int64_t column = 0;
  if constexpr (kBlockCols >= 4) {
    for (; column + 64 <= tile.value_width; column += 64)
      output_columns<R, 4>(tile, scores, depth, column, rows, row, keep, take);
  }
  for (; column < tile.value_width; column += 16)
    output_columns<R, 1>(tile, scores, depth, column, rows, row, keep, take);
}

// The tile against n rows, in register blocks of nearly equal size.
template <typename V>
inline void tile_all_rows(const Tile<V>& tile, const Rows& rows, int64_t n, float* scores) {
  const int64_t blocks = (n + kBlockRows - 1) / kBlockRows;
  for (int64_t block = 0; block < blocks; ++block) {
    const int64_t row = n * block / blocks;
    switch (n * (block + 1) / blocks - row) {
      case 1:
        tile_rows<1>(tile, rows, row, scores);
        break;
      case 2:
        tile_rows<2>(tile, rows, row, scores);
        break;
      case 3:
        tile_rows<3>(tile, rows, row, scores);
        break;
      case 4:
        tile_rows<4>(tile, rows, row, scores);
        break;
      case 5:
        tile_rows<5>(tile, rows, row, scores);
        break;
      default:
        tile_rows<6>(tile, rows, row, scores);
    }
  }
}

}  // namespace atb_core::cpu::ATB_CPU_LEVEL
