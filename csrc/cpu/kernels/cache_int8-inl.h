// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstring>

namespace atb_core::cpu::ATB_CPU_LEVEL {

// How a cache of int8 is laid out, in bytes: each block has the rows of its slots, [block_size, heads, size], and then
// their scales, float32 [block_size, heads].
struct Int8Layout {
  int64_t block_size, heads, size;

  int64_t block_bytes() const { return block_size * heads * (size + static_cast<int64_t>(sizeof(float))); }
  // Where head 0 of a slot is, and its scale.
  int64_t row(int64_t block, int64_t offset) const { return block * block_bytes() + offset * heads * size; }
  int64_t scale(int64_t block, int64_t offset) const {
    return row(block, block_size) + offset * heads * static_cast<int64_t>(sizeof(float));
  }
};

// Rounds one head of a token.
template <typename T>
inline void write_int8(const T* x, const Int8Layout& layout, int64_t slot, int64_t head, std::byte* cache) {
  const int64_t block = slot / layout.block_size, offset = slot % layout.block_size;
  const float scale =
      quantize_row(x, layout.size, reinterpret_cast<int8_t*>(cache + layout.row(block, offset) + head * layout.size));
  std::memcpy(cache + layout.scale(block, offset) + head * static_cast<int64_t>(sizeof scale), &scale, sizeof scale);
}

// Threads share the heads of keys and of values.
inline void write_int8_slots(const ReshapeAndCacheArgs& args, const Worker& worker) {
  const int64_t heads = args.k.dim(1), size = args.k.dim(2);
  const Int8Layout layout{args.k_cache.dim(1), heads, size};
  const auto [begin, end] = worker.share(2 * heads);
  with_float_type(args.k.dtype, worker, [&, begin = begin, end = end](auto tag) {
    using T = decltype(tag);
    for (int64_t each = begin; each < end; ++each) {
      const int64_t head = each % heads;
      const T* x = (each < heads ? args.k : args.v).as<T>() + head * size;
      std::byte* cache = (each < heads ? args.k_cache : args.v_cache).as<std::byte>();
      for (int64_t t = 0; t < args.k.dim(0); ++t)
        if (const int32_t slot = args.slots.as<int32_t>()[t]; slot >= 0)
          write_int8(x + t * heads * size, layout, slot, head, cache);
    }
  });
}

}  // namespace atb_core::cpu::ATB_CPU_LEVEL
