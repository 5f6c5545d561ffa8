// SPDX-License-Identifier: Apache-2.0
// softmax(q @ k^T * scale + mask) @ v of one sequence, for SelfAttention and PagedAttention: in float32, or with scores
// of float16.
#pragma once

#include <functional>
#include <vector>

#include "ops/reject.h"
#include "ops/shapes.h"

namespace atb::sim {

// Refuses parameters of an attention whose heads do not go together, or that ask for what is `missing`, if anything.
template <typename Param>
Status check_attention(const char* name, const Param& param, const char* missing) {
  const int heads = param.headNum, kv_heads = param.kvHeadNum;
  ATB_SIM_TRY(check_reserved(name, param.rsv));
  if (heads <= 0 || kv_heads < 0 || (kv_heads != 0 && heads % kv_heads != 0)) {
    return reject(ERROR_INVALID_PARAM, name, ": headNum ", heads, " and kvHeadNum ", kv_heads, " do not go together");
  }
  if (missing == nullptr) return NO_ERROR;
  return reject(ERROR_INVALID_PARAM, name, ": the simulator does not have ", missing);
}

struct AttentionShape {
  int64_t heads = 0, kv_heads = 0, head_dim = 0, v_head_dim = 0;
  float scale = 1.0f;
  // The kernel keeps its scores in float16: the products before the scale, and the sum with the mask.
  bool half_scores = false;
};

struct Sequence {
  int64_t batch = 0;    // which sequence
  int64_t q_begin = 0;  // its first row of q and of the output
  int64_t q_count = 0, kv_count = 0;
};

// Writes one token's key or value of a key/value head.
using LoadRow = std::function<void(int64_t token, int64_t kv_head, float* out)>;
// Writes what is added to a query row's scores and returns how many columns the kernel looks at, from the left.
using MaskRow = std::function<int64_t(const Sequence& sequence, int64_t head, int64_t row, float* added)>;

// q is [tokens, heads * head_dim], out [tokens, heads * v_head_dim], in any rank.
void attend(const AttentionShape& shape, const Sequence& sequence, const View& q, const LoadRow& key,
            const LoadRow& value, const MaskRow& mask, const View& out);

// A mask tensor: ND [rows, columns] with up to two leading dimensions, or NZ [batch, columns / 16, rows, 16].
struct MaskSizes {
  int64_t rows = 0, columns = 0;
};
MaskSizes mask_sizes(const Sizes& dims, bool nz);
// added[j] = factor * mask[plane, row, first + j]; plane counts the leading dimensions together.
void read_mask(const View& mask, int64_t plane, int64_t row, int64_t first, int64_t count, float factor, float* added);

constexpr int64_t kMaskBlock = 128;  // a compressed mask is one block of the diagonal
// Writes the values that such a block, one of several planes, adds at the query with absolute position `row`; returns
// the number of visible columns.
int64_t block_mask(const View& mask, int64_t plane, int64_t row, int64_t columns, float factor, float* added);

}  // namespace atb::sim
