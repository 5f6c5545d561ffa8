// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cmath>

namespace atb_core::cpu::ATB_CPU_LEVEL {

// One group [first half, second half] of a head: y = x*cos + (-second, first)*sin. Both halves are read before
// either is written, so y may be x.
template <typename T, typename C>
inline void rotate_halves(const T* x, const C* cos, const C* sin, T* y, int64_t half) {
  for (int64_t i = 0; i < half; i += 16) {
    const int64_t n = half - i;
    const F16 a = load_up_to_16(x + i, n), b = load_up_to_16(x + half + i, n);
    const F16 cos_a = load_up_to_16(cos + i, n), cos_b = load_up_to_16(cos + half + i, n);
    const F16 sin_a = load_up_to_16(sin + i, n), sin_b = load_up_to_16(sin + half + i, n);
    store_up_to_16(y + i, fma(a, cos_a, neg(b) * sin_a), n);
    store_up_to_16(y + half + i, fma(b, cos_b, a * sin_b), n);
  }
}

// Groups of two (neighbouring pairs), sixteen elements at a time through a small buffer that swaps neighbours.
template <typename T, typename C>
inline void rotate_pairs(const T* x, const C* cos, const C* sin, T* y, int64_t size) {
  float lanes[16], turned[16];
  for (int64_t i = 0; i < size; i += 16) {
    const int64_t n = size - i;
    const F16 a = load_up_to_16(x + i, n);
    store(lanes, a);
    for (int j = 0; j < 16; j += 2) {
      turned[j] = -lanes[j + 1];
      turned[j + 1] = lanes[j];
    }
    const F16 rotated = load(turned);
    store_up_to_16(y + i, fma(a, load_up_to_16(cos + i, n), rotated * load_up_to_16(sin + i, n)), n);
  }
}

template <typename T, typename C>
inline void rope_tokens(const RopeArgs& args, const Worker& worker) {
  const int64_t size = args.cos.dim(-1);
  const int64_t half = size / args.rotary_coeff;
  const auto turn = [&](const TensorView& from, const TensorView& to, int64_t token) {
    const C* cos = args.cos.as<C>() + token * size;
    const C* sin = args.sin.as<C>() + token * size;
    const int64_t width = from.dim(-1);
    for (int64_t head = 0; head < width; head += size) {
      const T* x = from.as<T>() + token * width + head;
      T* y = to.as<T>() + token * width + head;
      if (half == 1) {
        rotate_pairs(x, cos, sin, y, size);
      } else {
        for (int64_t g = 0; g < size; g += 2 * half) rotate_halves(x + g, cos + g, sin + g, y + g, half);
      }
    }
  };
  const auto [begin, end] = worker.share(args.cos.dim(0));
  for (int64_t token = begin; token < end; ++token) {
    turn(args.q, args.q_out, token);
    turn(args.k, args.k_out, token);
  }
}

inline void rope(const RopeArgs& args, const Worker& worker) {
  with_float_type(args.q.dtype, worker, [&](auto tag) {
    using T = decltype(tag);
    if (args.cos.dtype == DataType::f32) {
      rope_tokens<T, float>(args, worker);
    } else {
      rope_tokens<T, T>(args, worker);
    }
  });
}

}  // namespace atb_core::cpu::ATB_CPU_LEVEL
