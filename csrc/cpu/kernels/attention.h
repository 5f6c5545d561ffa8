// SPDX-License-Identifier: Apache-2.0
// Tile sizes and the layout of scratch memory that the attention kernels of all levels share.
#pragma once

#include <cstddef>
#include <cstdint>

#include "cpu/kernels/kernels.h"

namespace atb_core::cpu {

// Positions of a tile of keys and values. Part of the numerics: tiles start at multiples of it.
inline constexpr int64_t kTile = 64;
// The query rows (tokens x heads of one kv head) that share a converted tile. It affects speed only.
inline constexpr int64_t kItemRows = 96;

// With at most this many rows, values are used in place instead of being converted first.
inline constexpr int64_t kRowsForScratch = 12;

// Returns head_dim padded to whole vectors.
constexpr int64_t padded(int64_t d) { return (d + 15) / 16 * 16; }

// A thread's scratch, in bytes from its start.
struct AttentionLayout {
  int64_t rows = 0;  // query rows of the largest item
  size_t query = 0, output = 0, top = 0, sum = 0, keys = 0, values = 0, scores = 0, places = 0, visible = 0,
         mask_row = 0;
  size_t bytes = 0;
};
AttentionLayout attention_layout(int64_t heads, int64_t kv_heads, int64_t d, int64_t dv);

// Floats of the state (output, maximum, sum) of one row after one tile, when tiles are shared among threads.
constexpr int64_t partial_size(int64_t dv) { return padded(dv) + 16; }

}  // namespace atb_core::cpu
