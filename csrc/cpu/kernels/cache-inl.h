// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstring>

#include "cpu/kernels/cache_int8-inl.h"
#include "cpu/kernels/cache_packed-inl.h"

namespace atb_core::cpu::ATB_CPU_LEVEL {

// Copies the bytes [begin, end) of each token's row to its slot.
inline void write_slots(const TensorView& from, const TensorView& cache, const int32_t* slots, size_t begin,
                        size_t end) {
  const int64_t tokens = from.dim(0);
  const size_t row = static_cast<size_t>(from.count(1, from.rank)) * itemsize(from.dtype);
  for (int64_t t = 0; t < tokens; ++t) {
    if (slots[t] < 0) continue;
    std::memcpy(cache.as<std::byte>() + static_cast<size_t>(slots[t]) * row + begin,
                from.as<std::byte>() + static_cast<size_t>(t) * row + begin, end - begin);
  }
}

// Threads share the bytes of a row, not the tokens: then it is the later token that stays in a slot named twice.
// All slots are looked at before any is written, so that a bad one leaves the cache as it was.
template <Isa isa>
inline void reshape_and_cache(const ReshapeAndCacheArgs& args, const Worker& worker) {
  const int64_t tokens = args.k.dim(0);
  const int64_t limit = args.k_cache.count(0, 2);
  const int32_t* slots = args.slots.as<int32_t>();
  for (int64_t t = 0; t < tokens; ++t)
    if (slots[t] >= limit) return worker.error->report("slot is outside the key/value cache", t, slots[t], limit);
  if (args.k_cache.dtype == DataType::i8 && args.k.dtype != DataType::i8) return write_int8_slots(args, worker);
  if (args.packed_kv) return write_packed_slots(args, attention_products(isa, DataType::bf16), worker);
  const auto copy = [&](const TensorView& from, const TensorView& cache) {
    const int64_t row = from.count(1, from.rank) * static_cast<int64_t>(itemsize(from.dtype));
    const auto [begin, end] = worker.share(row, kAlignment);
    if (begin < end) write_slots(from, cache, slots, static_cast<size_t>(begin), static_cast<size_t>(end));
  };
  copy(args.k, args.k_cache);
  copy(args.v, args.v_cache);
}

}  // namespace atb_core::cpu::ATB_CPU_LEVEL
