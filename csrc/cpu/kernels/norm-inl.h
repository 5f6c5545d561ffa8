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

template <typename T>
inline void scale_row(const T* x, const T* weight, float factor, T* out, int64_t n) {
  const F16 f = set1(factor);
  map(x, weight, out, n, [&](F16 v, F16 w) { return v * f * w; });
}

inline void rms_norm(const RmsNormArgs& args, const Worker& worker) {
  const int64_t n = args.x.dim(-1);
  const int64_t rows = args.x.count(0, args.x.rank - 1);
  with_float_type(args.x.dtype, worker, [&](auto tag) {
    using T = decltype(tag);
    const auto [begin, end] = worker.share(rows);
    for (int64_t row = begin; row < end; ++row) {
      const T* x = args.x.as<T>() + row * n;
      scale_row(x, args.weight.as<T>(), reciprocal_rms(x, n, args.epsilon), args.out.as<T>() + row * n, n);
    }
  });
}

inline void add_rms_norm(const AddRmsNormArgs& args, const Worker& worker) {
  const int64_t n = args.a.dim(-1);
  const int64_t rows = args.a.count(0, args.a.rank - 1);
  with_float_type(args.a.dtype, worker, [&](auto tag) {
    using T = decltype(tag);
    const auto [begin, end] = worker.share(rows);
    for (int64_t row = begin; row < end; ++row) {
      const int64_t at = row * n;
      T* sum = args.sum.as<T>() + at;
      map(args.a.as<T>() + at, args.b.as<T>() + at, sum, n, [](F16 a, F16 b) { return a + b; });
      const float rstd = reciprocal_rms(sum, n, args.epsilon);
      if (args.rstd.data != nullptr) args.rstd.as<float>()[row] = rstd;
      scale_row(sum, args.weight.as<T>(), rstd, args.out.as<T>() + at, n);
    }
  });
}

}  // namespace atb_core::cpu::ATB_CPU_LEVEL
