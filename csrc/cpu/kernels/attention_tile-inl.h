// SPDX-License-Identifier: Apache-2.0
// One tile of keys and values against some query rows: the only attention arithmetic there is. Prefill, decoding and
// everything between call it, so a row gets the same bits wherever it is computed:
//   score(t) = q . k(t) in the order of linear.h, then * scale, then cap * tanh(score / cap), then + mask;
//   m = max, p(t) = exp(score(t) - m), rounded to bf16 if q is; l(j) = sum of p(t) over t = j, j+16, ...;
//   o(c) = sum of p(t) * v(t, c) over t in the order of linear.h;
//   state: M' = max(M, m), a = exp(M - M'), b = exp(m - M'), L(j) = fma(l(j), b, L(j) * a), O = fma(o, b, O * a).
// In bf16, exp2_to_bf16() takes exponentials and rounds, and subtracts m in the multiplication by log2(e). Without cap and
// mask it also multiplies by a positive scale, and m is that of q . k(t) until then.
// Keys and values of int8 are integers k(t) and v(t) with scales: score(t) is multiplied by that of k(t) first, and it is
// p(t) times the scale of v(t) that is rounded and multiplied by v(t), while l sums the p(t) themselves.
// The lanes of L are added in the end. A tile of which a row sees nothing leaves the row's state as it is; elsewhere a
// position that a row does not see has p = 0.
#pragma once

#include "cpu/kernels/attention_weigh-inl.h"

namespace atb_core::cpu::ATB_CPU_LEVEL {

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

// Blocks [0, blocks) of a packed tile times prepared rows; the results of each call of the kernel, for a block or a pair,
// follow those of the one before.
template <typename E>
inline void multiply_blocks(const Products& products, const std::byte* x, int rows, const std::byte* packed,
                            int64_t depth, int blocks, int steps, float* out, Prefetch<E>& prefetch) {
  const LinearKernel& kernel = *products.kernel;
  const int pairs = (blocks + 1) / 2;
  TileJob job{};
  job.x = x;
  job.rows = rows;
  job.blocks = kernel.blocks(rows);
  job.w = packed;
  job.steps = steps;
  job.acc = out;
  job.first = true;
  if (kernel.multiply_pairs != nullptr) {
    const int at_once = prefetch.of_few_rows() ? 1 : pairs;
    for (int p = 0; p < pairs; p += at_once, job.acc += rows * at_once * kPairBlocks * 16) {
      prefetch.shares(static_cast<uint64_t>(kShares * at_once));
      job.w = packed + static_cast<size_t>(p) * products.pair_bytes(depth);
      kernel.multiply_pairs(job, at_once, products.pair_bytes(depth));
    }
    return;
  }
  prefetch.shares(static_cast<uint64_t>(kShares * pairs));
  for (int b = 0; b < blocks; b += job.blocks, job.acc += rows * job.blocks * 16) {
    job.w = packed + static_cast<size_t>(b / kPairBlocks) * products.pair_bytes(depth) +
            static_cast<size_t>(b % kPairBlocks) * products.block_step();
    kernel.multiply(job);
  }
}

// So many columns of outputs have room where the scores were.
inline constexpr int64_t kOutputColumns = kTile;

// Adds n columns of a group's products to its outputs from `out` on, in rows of `width`. The products are in blocks of
// `columns`, all rows of one before the next.
template <typename E>
inline void merge_outputs(const Rows& rows, Group group, int64_t n, const float* products, int64_t columns, float* out,
                          int64_t width, const float* keep, const float* take, Prefetch<E>& prefetch) {
  int64_t offsets[kOutputColumns / 16] = {};
  for (int64_t c = 0; c < n; c += 16) offsets[c / 16] = c / columns * group.stored * columns + c % columns;
  const auto merge = [&](int64_t i, F16 a, F16 b) {
    store(out + 16 * i, fma(load(products + offsets[i]), b, load(out + 16 * i) * a));
  };
  for (int r = 0; r < group.count; ++r, products += columns, out += width) {
    // The rows of the next group come from L2: one that is asked for while another is merged is not waited for.
    for (int64_t i = 0; i < n; i += 16) __builtin_prefetch(out + group.count * width + i, 1, 3);
    prefetch.row();
    if (rows.depth[group.first + r] == 0) continue;
    const F16 a = set1(keep[r]), b = set1(take[r]);
    if (n == kOutputColumns) {
#pragma GCC unroll 4
      for (int64_t i = 0; i < kOutputColumns / 16; ++i) merge(i, a, b);
    } else {
      for (int64_t i = 0; i < n / 16; ++i) merge(i, a, b);
    }
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
  multiply_blocks(products, query, group.stored, tile.keys, tile.d, (most + 15) / 16,
                  static_cast<int>(steps_of(tile.d)), tile.scores, prefetch);
  float keep[kGroupRows], take[kGroupRows];
  weigh_group<T, kHasScales<E>>(products, tile, rows, group, steps, columns, keep, take, prefetch);
  // The scores are of no use any more.
  const std::byte* values = tile.values;
  float* out = rows.output + group.first * width;
  for (int64_t left = width; left > 0; left -= kOutputColumns, out += kOutputColumns) {
    const int64_t n = std::min(kOutputColumns, left);
    multiply_blocks(products, tile.weights, group.stored, values, kTile, static_cast<int>(n / 16), steps, tile.scores,
                    prefetch);
    merge_outputs(rows, group, n, tile.scores, columns, out, width, keep, take, prefetch);
    values += static_cast<size_t>(n / 32) * products.pair_bytes(kTile);
  }
}

}  // namespace atb_core::cpu::ATB_CPU_LEVEL
