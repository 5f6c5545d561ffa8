// SPDX-License-Identifier: Apache-2.0
#include "cpu/kernels/attention.h"

#include <algorithm>

namespace atb_core::cpu {
namespace {

// The most shared memory for the partial results of split contexts.
constexpr size_t kMaxPartialBytes = size_t{32} << 20;

size_t partial_bytes(int64_t rows, int64_t longest, int64_t dv) {
  const int64_t tiles = (longest + kTile - 1) / kTile;
  return static_cast<size_t>(rows * tiles * partial_size(dv)) * sizeof(float);
}

// Rows of int8 with a scale for each.
size_t int8_bytes(const TensorView& x) {
  return static_cast<size_t>(x.count(0, x.rank - 1) * (x.dim(-1) + static_cast<int64_t>(sizeof(float))));
}

}  // namespace

Products attention_products(Isa isa, DataType dtype) {
  if (dtype == DataType::bf16)
    return {&linear_kernel(isa, dtype), has_chain_layout(isa, dtype) ? Packing::chains : Packing::pairs};
  // The emulation has no other type.
  return {&linear_kernel(isa == Isa::amx_emulated ? best_isa() : isa, DataType::f32), Packing::floats};
}

bool can_pack(const TensorView& cache) {
  return cache.dtype == DataType::bf16 && cache.rank == 4 && cache.dim(1) % kTile == 0 && cache.dim(3) % kStep == 0;
}

AttentionLayout attention_layout(int64_t heads, int64_t kv_heads, int64_t d, int64_t dv) {
  AttentionLayout layout;
  layout.rows = (std::max(kItemRows, heads / kv_heads) + kGroupRows - 1) / kGroupRows * kGroupRows;
  const auto floats = [&](int64_t n) {
    const size_t at = layout.bytes;
    layout.bytes += align_up(static_cast<size_t>(n) * sizeof(float));
    return at;
  };
  layout.query = floats(layout.rows * padded(d));
  layout.output = floats(layout.rows * padded(dv));
  layout.top = floats(layout.rows);
  layout.sum = floats(layout.rows * 16);
  layout.keys = floats(padded(d) * kTile);
  layout.values = floats(kTile * padded(dv));
  layout.scores = floats(kGroupRows * kTile);
  layout.weights = floats(kGroupRows * kTile);
  for (size_t* ints : {&layout.visible, &layout.mask_row, &layout.depth, &layout.chosen}) *ints = floats(layout.rows);
  for (size_t* places : {&layout.places, &layout.scale_places})
    *places = floats(4 * kTile);  // of two tiles, 64 bits each
  layout.key_scales = floats(kTile);
  layout.value_scales = floats(kTile);
  return layout;
}

ScratchSize self_attention_scratch(const SelfAttentionArgs& args, int) {
  const size_t rounded = args.int8_kv ? int8_bytes(args.k) + int8_bytes(args.v) : 0;
  return {rounded, attention_layout(args.heads, args.kv_heads, args.q.dim(-1), args.v.dim(-1)).bytes};
}

ScratchSize paged_attention_scratch(const PagedAttentionArgs& args, int threads) {
  const int64_t dv = args.k_cache.dtype == DataType::i8 ? args.q.dim(-1) : args.v_cache.dim(-1);
  ScratchSize size{0, attention_layout(args.heads, args.kv_heads, args.q.dim(-1), dv).bytes};
  if (threads > 1) {
    const int64_t longest = args.block_tables.dim(1) * args.k_cache.dim(1);
    size.shared = std::min(partial_bytes(args.q.dim(0) * args.heads, longest, dv), kMaxPartialBytes);
  }
  return size;
}

}  // namespace atb_core::cpu
