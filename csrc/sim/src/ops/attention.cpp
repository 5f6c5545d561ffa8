// SPDX-License-Identifier: Apache-2.0
#include "ops/attention.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "ops/numeric.h"
#include "ops/simd.h"

namespace atb::sim {
namespace {

// Keys, values and scores of the sequence at hand.
struct Scratch {
  std::vector<float> keys, values, scores, added, q, out;
};

void softmax(float* scores, int64_t count) {
  float highest = -std::numeric_limits<float>::infinity(), total = 0.0f;
  for (int64_t j = 0; j < count; ++j) highest = std::max(highest, scores[j]);
  for (int64_t j = 0; j < count; ++j) total += scores[j] = std::exp(scores[j] - highest);
  for (int64_t j = 0; j < count; ++j) scores[j] /= total;
}

// A score as the kernel keeps it. What does not fit into float16 is infinite.
float kept(const AttentionShape& s, float score) { return s.half_scores ? from_f16(to_f16(score)) : score; }

void attend_row(const AttentionShape& s, int64_t visible, Scratch& scratch) {
  dot_rows(scratch.q.data(), scratch.keys.data(), s.head_dim, s.head_dim, visible, scratch.scores.data());
  for (int64_t j = 0; j < visible; ++j) {
    const auto at = static_cast<size_t>(j);
    float score = kept(s, scratch.scores[at]);
    score = kept(s, score * s.scale);
    scratch.scores[at] = kept(s, score + scratch.added[at]);
  }
  softmax(scratch.scores.data(), visible);
  std::fill(scratch.out.begin(), scratch.out.end(), 0.0f);
  for (int64_t j = 0; j < visible; ++j) {
    add_scaled(scratch.scores[static_cast<size_t>(j)], scratch.values.data() + j * s.v_head_dim, s.v_head_dim,
               scratch.out.data());
  }
}

}  // namespace

void attend(const AttentionShape& s, const Sequence& sequence, const View& q, const LoadRow& key, const LoadRow& value,
            const MaskRow& mask, const View& out) {
  const auto columns = static_cast<size_t>(sequence.kv_count);
  Scratch scratch{.keys = std::vector<float>(columns * static_cast<size_t>(s.head_dim)),
                  .values = std::vector<float>(columns * static_cast<size_t>(s.v_head_dim)),
                  .scores = std::vector<float>(columns),
                  .added = {},
                  .q = std::vector<float>(static_cast<size_t>(s.head_dim)),
                  .out = std::vector<float>(static_cast<size_t>(s.v_head_dim))};
  const int64_t group = s.heads / s.kv_heads;
  for (int64_t kv_head = 0; kv_head < s.kv_heads; ++kv_head) {
    for (int64_t t = 0; t < sequence.kv_count; ++t) {
      key(t, kv_head, scratch.keys.data() + t * s.head_dim);
      value(t, kv_head, scratch.values.data() + t * s.v_head_dim);
    }
    for (int64_t row = 0; row < sequence.q_count; ++row) {
      for (int64_t head = kv_head * group; head < (kv_head + 1) * group; ++head) {
        scratch.added.assign(columns, 0.0f);
        const int64_t visible = mask ? mask(sequence, head, row, scratch.added.data()) : sequence.kv_count;
        const int64_t at = (sequence.q_begin + row) * s.heads + head;
        load(q.data, q.dtype, at * s.head_dim, s.head_dim, scratch.q.data());
        attend_row(s, visible, scratch);
        store(scratch.out.data(), out.dtype, at * s.v_head_dim, s.v_head_dim, out.data);
      }
    }
  }
}

MaskSizes mask_sizes(const Sizes& dims, bool nz) {
  const size_t last = dims.size() - 1;
  if (nz && dims.size() == 4) return {dims[2], dims[1] * dims[3]};
  return {last == 0 ? 1 : dims[last - 1], dims[last]};
}

void read_mask(const View& mask, int64_t plane, int64_t row, int64_t first, int64_t count, float factor, float* added) {
  const bool nz = mask.format == ACL_FORMAT_FRACTAL_NZ;
  const MaskSizes size = mask_sizes(mask.dims, nz);
  const int64_t base = plane * size.rows * size.columns;
  if (!nz) {
    load(mask.data, mask.dtype, base + row * size.columns + first, count, added);
  } else {
    for (int64_t j = 0; j < count; ++j) {
      const int64_t column = first + j;
      added[j] = load_one(mask.data, mask.dtype, base + (column / 16 * size.rows + row) * 16 + column % 16);
    }
  }
  for (int64_t j = 0; j < count; ++j) added[j] *= factor;
}

int64_t block_mask(const View& mask, int64_t plane, int64_t row, int64_t columns, float factor, float* added) {
  const int64_t diagonal = row / kMaskBlock * kMaskBlock;
  const int64_t visible = std::min(columns, diagonal + kMaskBlock);
  if (diagonal < visible) read_mask(mask, plane, row % kMaskBlock, 0, visible - diagonal, factor, added + diagonal);
  return visible;
}

}  // namespace atb::sim
