// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cmath>

namespace atb_core::cpu::ATB_CPU_LEVEL {

// 1 / sqrt(mean(x^2) + epsilon) of a row: lane j sums the elements j, j+16, ..., then the tree over lanes.
template <typename T>
inline float reciprocal_rms(const T* x, int64_t n, float epsilon) {
  F16 squares = zero();
  for (int64_t i = 0; i < n; i += 16) {
    const F16 v = load_up_to_16(x + i, n - i);
    squares = fma(v, v, squares);
  }
  return 1.0F / std::sqrt(horizontal_sum(squares) / static_cast<float>(n) + epsilon);
}

template <typename T, typename W>
inline void scale_row(const T* x, const W* weight, float factor, T* out, int64_t n) {
  const F16 f = set1(factor);
  map(x, weight, out, n, [&](F16 v, F16 w) { return v * f * w; });
}

// Calls fn(tag of x's type, tag of the weight's type).
template <typename Fn>
inline void with_norm_types(const TensorView& x, const TensorView& weight, const Worker& worker, Fn&& fn) {
  with_float_type(x.dtype, worker, [&](auto tag) {
    if (weight.dtype == x.dtype) {
      fn(tag, tag);
    } else {
      fn(tag, float{});
    }
  });
}

inline void rms_norm(const RmsNormArgs& args, const Worker& worker) {
  const int64_t n = args.x.dim(-1);
  const int64_t rows = args.x.count(0, args.x.rank - 1);
  with_norm_types(args.x, args.weight, worker, [&](auto tag, auto weight_tag) {
    using T = decltype(tag);
    using W = decltype(weight_tag);
    const auto [begin, end] = worker.share(rows);
    for (int64_t row = begin; row < end; ++row) {
      const T* x = args.x.as<T>() + row * n;
      scale_row(x, args.weight.as<W>(), reciprocal_rms(x, n, args.epsilon), args.out.as<T>() + row * n, n);
    }
  });
}

inline void add_rms_norm(const AddRmsNormArgs& args, const Worker& worker) {
  const int64_t n = args.a.dim(-1);
  const int64_t rows = args.a.count(0, args.a.rank - 1);
  with_norm_types(args.a, args.weight, worker, [&](auto tag, auto weight_tag) {
    using T = decltype(tag);
    using W = decltype(weight_tag);
    const auto [begin, end] = worker.share(rows);
    for (int64_t row = begin; row < end; ++row) {
      const int64_t at = row * n;
      T* sum = args.sum.as<T>() + at;
      map(args.a.as<T>() + at, args.b.as<T>() + at, sum, n, [](F16 a, F16 b) { return a + b; });
      const float rstd = reciprocal_rms(sum, n, args.epsilon);
      if (args.rstd.data != nullptr) args.rstd.as<float>()[row] = rstd;
      scale_row(sum, args.weight.as<W>(), rstd, args.out.as<T>() + at, n);
    }
  });
}

template <typename T>
inline F16 sum_of_row(const T* x, int64_t n) {
  F16 total = zero();
  for (int64_t i = 0; i < n; i += 16) total = total + load_up_to_16(x + i, n - i);
  return total;
}

// The mean of the squared distances from the mean; lanes behind the end of the row are left out.
template <typename T>
inline float variance(const T* x, int64_t n, float mean) {
  const F16 m = set1(mean);
  F16 squares = zero();
  for (int64_t i = 0; i < n; i += 16) {
    F16 distance = load_up_to_16(x + i, n - i) - m;
    if (n - i < 16) distance = select(first(static_cast<int>(n - i)), distance, zero());
    squares = fma(distance, distance, squares);
  }
  return horizontal_sum(squares) / static_cast<float>(n);
}

inline void layer_norm(const LayerNormArgs& args, const Worker& worker) {
  const int64_t n = args.x.dim(-1);
  const int64_t rows = args.x.count(0, args.x.rank - 1);
  with_norm_types(args.x, args.weight, worker, [&](auto tag, auto weight_tag) {
    using T = decltype(tag);
    using W = decltype(weight_tag);
    const W *weight = args.weight.as<W>(), *bias = args.bias.as<W>();
    const auto [begin, end] = worker.share(rows);
    for (int64_t row = begin; row < end; ++row) {
      const T* x = args.x.as<T>() + row * n;
      T* out = args.out.as<T>() + row * n;
      const float mean = horizontal_sum(sum_of_row(x, n)) / static_cast<float>(n);
      const F16 m = set1(mean), factor = set1(1.0F / std::sqrt(variance(x, n, mean) + args.epsilon));
      for (int64_t i = 0; i < n; i += 16) {
        const int64_t rest = n - i;
        const F16 w = load_up_to_16(weight + i, rest), b = load_up_to_16(bias + i, rest);
        store_up_to_16(out + i, (load_up_to_16(x + i, rest) - m) * factor * w + b, rest);
      }
    }
  });
}

}  // namespace atb_core::cpu::ATB_CPU_LEVEL
