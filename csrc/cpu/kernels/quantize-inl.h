// SPDX-License-Identifier: Apache-2.0
// Activations to integers of 8 bits: with given scales, or with one of each row.
#pragma once

#include <cstring>
#include <limits>

namespace atb_core::cpu::ATB_CPU_LEVEL {

inline void store_int8_up_to_16(int8_t* p, F16 x, int64_t n) {
  if (n >= 16) return store_int8(p, x);
  int8_t whole[16];
  store_int8(whole, x);
  std::memcpy(p, whole, static_cast<size_t>(n));
}

inline void quantize(const QuantizeArgs& args, const Worker& worker) {
  const int64_t n = args.x.dim(-1);
  const bool each = args.scale.numel() != 1;
  const int8_t* offset = args.offset.as<int8_t>();
  with_norm_types(args.x, args.scale, worker, [&](auto tag, auto scale_tag) {
    using T = decltype(tag);
    using S = decltype(scale_tag);
    const S* scale = args.scale.as<S>();
    const auto [begin, end] = worker.share(args.x.count(0, args.x.rank - 1));
    for (int64_t row = begin; row < end; ++row) {
      const T* x = args.x.as<T>() + row * n;
      int8_t* out = args.out.as<int8_t>() + row * n;
      for (int64_t i = 0; i < n; i += 16) {
        const int64_t rest = n - i < 16 ? n - i : 16;
        float offsets[16];
        const F16 s = each ? load_up_to_16(scale + i, rest) : broadcast(scale);
        for (int64_t j = 0; j < 16; ++j) offsets[j] = j < rest ? static_cast<float>(offset[each ? i + j : 0]) : 0;
        store_int8_up_to_16(out + i, load_up_to_16(x + i, rest) / s + load(offsets), rest);
      }
    }
  });
}

// Rounds a row of n elements and returns its scale.
template <typename T>
inline float quantize_row(const T* x, int64_t n, int8_t* out) {
  Largest magnitudes;
  for (int64_t i = 0; i < n; i += 16) magnitudes.add(load_up_to_16(x + i, n - i));
  const float largest = magnitudes.get();
  const float scale = largest < 0x1p-100F ? 0 : largest / 127;
  if (!(scale > 0 && scale <= std::numeric_limits<float>::max())) {
    if (n > 0) std::memset(out, 0, static_cast<size_t>(n));
    return scale;
  }
  const F16 s = set1(scale);
  for (int64_t i = 0; i < n; i += 16) {
    store_int8_up_to_16(out + i, load_up_to_16(x + i, n - i) / s, n - i);
  }
  return scale;
}

inline void dynamic_quant(const DynamicQuantArgs& args, const Worker& worker) {
  const int64_t n = args.x.dim(-1);
  with_float_type(args.x.dtype, worker, [&](auto tag) {
    using T = decltype(tag);
    const auto [begin, end] = worker.share(args.x.count(0, args.x.rank - 1));
    for (int64_t row = begin; row < end; ++row)
      args.scale.as<float>()[row] = quantize_row(args.x.as<T>() + row * n, n, args.out.as<int8_t>() + row * n);
  });
}

}  // namespace atb_core::cpu::ATB_CPU_LEVEL
