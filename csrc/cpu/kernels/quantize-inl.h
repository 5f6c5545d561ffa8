// SPDX-License-Identifier: Apache-2.0
// Activations to integers of 8 bits: with given scales, or with one of each row.
#pragma once

#include <cmath>
#include <limits>

namespace atb_core::cpu::ATB_CPU_LEVEL {

// Adding 1.5 * 2^23 rounds to an integer, to nearest even.
inline int8_t to_int8(float value) {
  constexpr float kRound = 12582912;
  float v = value == value ? value : 0.0F;
  v = v > 127.0F ? 127.0F : v;
  v = v < -128.0F ? -128.0F : v;
  return static_cast<int8_t>(static_cast<int32_t>(v + kRound - kRound));
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
        float quotients[16], offsets[16];
        const F16 s = each ? load_up_to_16(scale + i, rest) : broadcast(scale);
        store(quotients, load_up_to_16(x + i, rest) / s);
        for (int64_t j = 0; j < 16; ++j) offsets[j] = j < rest ? static_cast<float>(offset[each ? i + j : 0]) : 0;
        for (int64_t j = 0; j < rest; ++j) out[i + j] = to_int8(quotients[j] + offsets[j]);
      }
    }
  });
}

// The largest magnitude of a row; NaN if there is one.
template <typename T>
inline float largest_magnitude(const T* x, int64_t n) {
  float largest = 0;
  bool nan = false;
  for (int64_t i = 0; i < n; i += 16) {
    float lanes[16];
    store(lanes, abs(load_up_to_16(x + i, n - i)));
    for (float lane : lanes) {
      nan = nan || lane != lane;
      largest = lane > largest ? lane : largest;
    }
  }
  return nan ? std::numeric_limits<float>::quiet_NaN() : largest;
}

// Rounds a row of n elements and returns its scale.
template <typename T>
inline float quantize_row(const T* x, int64_t n, int8_t* out) {
  const float largest = largest_magnitude(x, n);
  const float scale = largest < 0x1p-100F ? 0 : largest / 127;
  if (!(scale > 0 && scale <= std::numeric_limits<float>::max())) {
    if (n > 0) std::memset(out, 0, static_cast<size_t>(n));
    return scale;
  }
  const F16 s = set1(scale);
  for (int64_t i = 0; i < n; i += 16) {
    const int64_t rest = n - i < 16 ? n - i : 16;
    float quotients[16];
    store(quotients, load_up_to_16(x + i, rest) / s);
    for (int64_t j = 0; j < rest; ++j) out[i + j] = to_int8(quotients[j]);
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
