// SPDX-License-Identifier: Apache-2.0
// One tile of keys and values against some query rows: the only attention arithmetic there is. Prefill, decoding and
// everything between call it, so a row gets the same bits wherever it is computed:
//   score(t) = q . k(t) in the order of linear.h, then * scale, then cap * tanh(score / cap), then + mask;
//   m = max, p(t) = exp(score(t) - m), rounded to bf16 if q is; l(j) = sum of p(t) over t = j, j+16, ...;
//   o(c) = sum of p(t) * v(t, c) over t in the order of linear.h;
//   state: M' = max(M, m), a = exp(M - M'), b = exp(m - M'), L(j) = fma(l(j), b, L(j) * a), O = fma(o, b, O * a).
// Keys and values of int8 are integers k(t) and v(t) with scales: score(t) is multiplied by that of k(t) first, and it is
// p(t) times the scale of v(t) that is rounded and multiplied by v(t), while l sums the p(t) themselves.
// The lanes of L are added in the end. A tile of which a row sees nothing leaves the row's state as it is; elsewhere a
// position that a row does not see has p = 0.
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

// Cuts n rows into groups of nearly equal size that the kernel takes at once, and calls f(group) for each.
template <typename F>
inline void for_each_group(const LinearKernel& kernel, int64_t n, F f) {
  const int64_t unit = kernel.row_unit, units = (n + unit - 1) / unit, most = kernel.max_rows / unit;
  const int64_t groups = (units + most - 1) / most;
  for (int64_t g = 0; g < groups; ++g) {
    const int64_t begin = units * g / groups * unit, end = units * (g + 1) / groups * unit;
    f(Group{begin, static_cast<int>((end < n ? end : n) - begin), static_cast<int>(end - begin)});
  }
}

// Writes a prepared row of 16-bit queries as the packing wants it, or of others as floats.
template <typename T>
inline void prepare_query(const Products& products, const T* q, int64_t d, std::byte* dst, size_t stride) {
  if (products.packing != Packing::floats) return products.kernel->prepare_row(q, d, dst, stride);
  for (int64_t k = 0; k < padded(d); k += 16)
    store(reinterpret_cast<float*>(dst + static_cast<size_t>(k / kStep) * stride) + k % kStep,
          k < d ? load_up_to_16(q + k, d - k) : zero());
}

// Two vectors of probabilities, a step, as the kernel takes them.
inline void store_weights(const Products& products, F16 a, F16 b, std::byte* dst) {
  float* out = reinterpret_cast<float*>(dst);
  if (products.kernel->row_bytes == 2 * 64) {
    store(out, a);
    store(out + 16, b);
    return;
  }
  const F16 words = join_bf16(a, b);
  store(out, products.packing == Packing::chains ? chain_order(words) : words);
}

inline constexpr int kTileVectors = kTile / 16;

// The scores of a row, a vector of a tile's positions at a time.
struct ScoreRow {
  float* data;
  const int64_t* offsets;  // of each vector
  float* at(int i) const { return data + offsets[i]; }
};

// Turns a row's scores into what their exponentials are taken of, in place; returns the maximum. Only the first n
// positions count: all of the tile if `Whole`, which is without cap and mask.
template <bool Scaled, bool Whole>
inline float weigh_row(const Tile& tile, ScoreRow scores, int n, int64_t mask_row) {
  const Weighing& how = tile.how;
  const F16 scale = set1(how.scale), nothing = set1(-HUGE_VALF);
  F16 v[kTileVectors];
#pragma GCC unroll 4
  for (int i = 0; i < kTileVectors; ++i) {
    const int here = Whole ? 16 : n - 16 * i;
    v[i] = nothing;
    if (here <= 0) continue;
    v[i] = load(scores.at(i));
    if constexpr (Scaled) v[i] = v[i] * load(tile.key_scales + 16 * i);
    v[i] = v[i] * scale;
    if constexpr (Whole) continue;
    if (how.cap != 0.0F) v[i] = tanh(v[i] / set1(how.cap)) * set1(how.cap);
    if (how.mask.data != nullptr) v[i] = v[i] + how.mask.load_at(mask_row, tile.start + 16 * i, here);
    if (here < 16) v[i] = select(first(here), v[i], nothing);
  }
  // Nobody reads the vectors of which no position counts.
  for (int i = 0; i < kTileVectors; ++i)
    if (Whole || n > 16 * i) store(scores.at(i), v[i]);
  return horizontal_max(max(max(max(v[0], v[1]), v[2]), v[3]));
}

// Turns a weighed row into prepared probabilities, `steps` steps of them, and gives their sums. `base` is the maximum.
template <typename T, bool Scaled, bool Whole>
inline void exponentiate_row(const Products& products, const Tile& tile, ScoreRow scores, int n, int steps, float base,
                             float* sum, std::byte* weights, size_t stride) {
  F16 v[kTileVectors];
#pragma GCC unroll 4
  for (int i = 0; i < kTileVectors; ++i)
    v[i] = (Whole || n > 16 * i ? load(scores.at(i)) : set1(-HUGE_VALF)) - set1(base);
  // Zero for a position that does not count.
#pragma GCC unroll 4
  for (F16& each : v) each = exp_of_nonpositive(each);
  F16 total = zero();
  if constexpr (Scaled) {
    for (int i = 0; i < kTileVectors; ++i) {
      total = total + v[i];
      if (!Whole && n <= 16 * i) continue;
      v[i] = v[i] * load(tile.value_scales + 16 * i);
      // A scale may be infinite where the row sees nothing.
      if constexpr (!Whole) v[i] = select(first(n - 16 * i), v[i], zero());
    }
  }
  if constexpr (std::is_same_v<T, Bf16>)
#pragma GCC unroll 4
    for (F16& each : v) each = rounded_to_bf16(each);
  if constexpr (!Scaled)
    for (const F16& each : v) total = total + each;
  store(sum, total);
  store_weights(products, v[0], v[1], weights);
  if (Whole || steps > 1) store_weights(products, v[2], v[3], weights + stride);
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

// Blocks [0, blocks) of a packed tile times prepared rows. Calls before() before each call of the kernel and
// done(first block, result) after it, which gives the place of the next result.
template <typename Before, typename Done>
inline void multiply_blocks(const Products& products, const std::byte* x, int rows, const std::byte* packed,
                            int64_t depth, int64_t blocks, int steps, float* out, Before before, Done done) {
  const LinearKernel& kernel = *products.kernel;
  TileJob job{};
  job.x = x;
  job.rows = rows;
  job.blocks = kernel.blocks(rows);
  job.steps = steps;
  job.acc = out;
  job.first = true;
  for (int64_t b = 0; b < blocks; b += job.blocks) {
    job.w = packed + static_cast<size_t>(b / kPairBlocks) * products.pair_bytes(depth) +
            static_cast<size_t>(b % kPairBlocks) * products.block_step();
    before();
    kernel.multiply(job);
    job.acc = done(b, job);
  }
}

// Turns the scores of a group into probabilities, `steps` steps of them, and merges its maxima and sums; gives the factors
// of the outputs.
template <typename T, bool Scaled>
inline void weigh_group(const Products& products, const Tile& tile, const Rows& rows, Group group, int steps,
                        int64_t columns, float* keep, float* take) {
  const int32_t* depths = rows.depth + group.first;
  const size_t row_bytes = products.kernel->row_bytes, stride = static_cast<size_t>(group.stored) * row_bytes;
  float tops[kGroupRows], sums[kGroupRows * 16];
  for (int r = 0; r < kGroupRows; ++r) tops[r] = -HUGE_VALF;
  int64_t offsets[kTileVectors];  // of positions 16 * i in a row of scores: divisions for each row would take as long
  for (int i = 0; i < kTileVectors; ++i) offsets[i] = 16 * i / columns * group.stored * columns + 16 * i % columns;
  const auto for_each_row = [&](auto f) {
    const bool plain = tile.how.cap == 0.0F && tile.how.mask.data == nullptr;
    for (int r = 0; r < group.count; ++r) {
      const ScoreRow scores{tile.scores + r * columns, offsets};
      if (plain && depths[r] == kTile)
        f(std::true_type(), r, scores, depths[r]);
      else
        f(std::false_type(), r, scores, depths[r]);
    }
  };
  // Two loops: a row's exponentials wait for its maximum, but not for those of the rows before it.
  for_each_row([&](auto whole, int r, ScoreRow scores, int n) {
    const int64_t mask_row = tile.how.mask.data != nullptr ? rows.mask_row[group.first + r] : 0;
    tops[r] = weigh_row<Scaled, whole()>(tile, scores, n, mask_row);
  });
  for_each_row([&](auto whole, int r, ScoreRow scores, int n) {
    // Scores of -inf alone must not give -inf - -inf.
    const float base = tops[r] == -HUGE_VALF ? 0.0F : tops[r];
    exponentiate_row<T, Scaled, whole()>(products, tile, scores, n, steps, base, sums + 16 * r,
                                         tile.weights + static_cast<size_t>(r) * row_bytes, stride);
  });
  for (int r = 0; r < group.count; r += 16) {
    const int n = std::min(16, group.count - r);
    merge_sums(rows.top + group.first + r, rows.sum + 16 * (group.first + r), tops + r, sums + 16 * r, n, keep + r,
               take + r);
  }
}

// Adds a pair of blocks of a group's products to its outputs.
inline void merge_outputs(const Rows& rows, Group group, int64_t width, int64_t column, const float* products,
                          int64_t columns, const float* keep, const float* take) {
  for (int r = 0; r < group.count; ++r, products += columns) {
    if (rows.depth[group.first + r] == 0) continue;
    float* out = rows.output + (group.first + r) * width + column;
    const F16 a = set1(keep[r]), b = set1(take[r]);
    if (columns == 32) {
      const F16 left = fma(load(products), b, load(out) * a), right = fma(load(products + 16), b, load(out + 16) * a);
      store(out, left);
      store(out + 16, right);
      continue;
    }
    for (int64_t c = 0; c < columns; c += 16) store(out + c, fma(load(products + c), b, load(out + c) * a));
  }
}

// The tile against a group of rows.
template <typename T, typename E>
inline void tile_group(const Products& products, const Tile& tile, const Rows& rows, Group group,
                       Prefetch<E>& prefetch) {
  const int32_t* depths = rows.depth + group.first;
  const int most = *std::max_element(depths, depths + group.count);
  if (most == 0) return;
  const LinearKernel& kernel = *products.kernel;
  const int steps = static_cast<int>(steps_of(most));
  const int64_t columns = kernel.blocks(group.stored) * 16, width = padded(tile.dv);
  const std::byte* query = rows.query + static_cast<size_t>(group.first * steps_of(tile.d)) * kernel.row_bytes;
  const auto before = [&] { prefetch.shares(kShares); };
  multiply_blocks(products, query, group.stored, tile.keys, tile.d, (most + 15) / 16,
                  static_cast<int>(steps_of(tile.d)), tile.scores, before,
                  [&](int64_t, const TileJob& job) { return job.acc + group.stored * columns; });
  float keep[kGroupRows], take[kGroupRows];
  weigh_group<T, kHasScales<E>>(products, tile, rows, group, steps, columns, keep, take);
  // The scores are of no use any more.
  multiply_blocks(products, tile.weights, group.stored, tile.values, kTile, (tile.dv + 15) / 16, steps, tile.scores,
                  before, [&](int64_t block, const TileJob& job) {
                    merge_outputs(rows, group, width, block * 16, job.acc, columns, keep, take);
                    return job.acc;
                  });
}

}  // namespace atb_core::cpu::ATB_CPU_LEVEL
