// SPDX-License-Identifier: Apache-2.0
// Tile sizes, matrix products and the layout of scratch memory that the attention kernels of all levels share.
#pragma once

#include <cstddef>
#include <cstdint>

#include "cpu/kernels/kernels.h"
#include "cpu/kernels/linear_kernel.h"

namespace atb_core::cpu {

// Positions of a tile of keys and values. Part of the numerics: tiles start at multiples of it. Two steps of a product.
inline constexpr int64_t kTile = 64;
// The query rows of an item (tokens x heads of a kv head that share a packed tile, for some kv heads), and the bytes of
// a tile of all of its heads. They affect speed only.
inline constexpr int64_t kItemRows = 512;
inline constexpr int64_t kTileBytes = 256 << 10;
// The largest row unit of a linear kernel, and the most rows that one takes at once.
inline constexpr int64_t kRowUnit = 16;
inline constexpr int64_t kGroupRows = 32;

// Returns n elements padded to whole pairs of blocks, which is also whole steps.
constexpr int64_t padded(int64_t n) { return (n + kStep - 1) / kStep * kStep; }

// How a tile of keys or values is packed, as linear_kernel.h says: bf16 as natural pairs or chains; f16 and f32 as
// float32.
enum class Packing { floats, pairs, chains };

// The kernel of the matrix products of attention: that of linear(), so that their order of additions is the same.
struct Products {
  const LinearKernel* kernel = nullptr;
  Packing packing = Packing::floats;

  size_t block_step() const { return block_step_bytes(packing == Packing::floats ? DataType::f32 : DataType::bf16); }
  // Bytes of a pair of blocks that is `depth` elements deep.
  size_t pair_bytes(int64_t depth) const { return kPairBlocks * block_step() * static_cast<size_t>(steps_of(depth)); }
};
Products attention_products(Isa isa, DataType dtype);

// A thread's scratch, in bytes from its start. It suffices for the products of every level.
struct AttentionLayout {
  int64_t rows = 0;  // query rows of the largest item, in whole row tiles
  size_t query = 0, output = 0, top = 0, sum = 0, keys = 0, values = 0, scores = 0, weights = 0, places = 0,
         scale_places = 0, key_scales = 0, value_scales = 0, visible = 0, mask_row = 0, depth = 0, chosen = 0;
  size_t bytes = 0;
};
AttentionLayout attention_layout(int64_t heads, int64_t kv_heads, int64_t d, int64_t dv);

// Floats of the state (output, sums, maximum) of one row after one tile, when tiles are shared among threads.
constexpr int64_t partial_size(int64_t dv) { return padded(dv) + 32; }

}  // namespace atb_core::cpu
