// SPDX-License-Identifier: Apache-2.0
// The position of a token's head in a paged cache.
#pragma once

#include "ops/shapes.h"

namespace atb::sim {

// ND [blocks, block size, heads, head size] or NZ [blocks, heads * head size / lanes, block size, lanes], lanes 16 or
// (one byte) 32.
struct CacheLayout {
  int64_t blocks = 0, block_size = 0, heads = 0, head_dim = 0;
  int64_t lanes = 0;  // 0: ND

  int64_t width() const { return heads * head_dim; }
  // Returns the offset of channel c of a token.
  int64_t offset(int64_t block, int64_t place, int64_t c) const {
    if (lanes == 0) return (block * block_size + place) * width() + c;
    return ((block * (width() / lanes) + c / lanes) * block_size + place) * lanes + c % lanes;
  }
  // Returns the number of channels from c on that are contiguous, up to `count`.
  int64_t run(int64_t c, int64_t count) const {
    if (lanes == 0) return count;
    const int64_t rest = lanes - c % lanes;
    return rest < count ? rest : count;
  }
};

// Reads a cache of `heads` heads from its description; nz says which of the layouts it has.
Status cache_layout(const std::string& op, const TensorDesc& cache, int64_t heads, bool nz, CacheLayout& layout);

}  // namespace atb::sim
