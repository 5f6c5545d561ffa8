// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cmath>

namespace atb_core::cpu::ATB_CPU_LEVEL {

// Computes exp(x - max) / sum. The exponentials are computed twice instead of stored: a row may be longer than any
// scratch.
template <typename T>
inline void softmax_row(const T* x, T* out, int64_t n) {
  F16 largest = set1(-HUGE_VALF);
  for (int64_t i = 0; i < n; i += 16) {
    const F16 v = load_up_to_16(x + i, n - i);
    largest = max(largest, n - i >= 16 ? v : select(first(static_cast<int>(n - i)), v, set1(-HUGE_VALF)));
  }
  const F16 top = set1(horizontal_max(largest));
  F16 sums = zero();
  for (int64_t i = 0; i < n; i += 16) {
    const F16 e = exp(load_up_to_16(x + i, n - i) - top);
    sums = sums + (n - i >= 16 ? e : select(first(static_cast<int>(n - i)), e, zero()));
  }
  const F16 sum = set1(horizontal_sum(sums));
  map(x, out, n, [&](F16 v) { return exp(v - top) / sum; });
}

inline void softmax(const SoftmaxArgs& args, const Worker& worker) {
  const int64_t rows = args.x.count(0, args.first_axis);
  const int64_t n = args.x.count(args.first_axis, args.x.rank);
  with_float_type(args.x.dtype, worker, [&](auto tag) {
    using T = decltype(tag);
    const auto [begin, end] = worker.share(rows);
    for (int64_t row = begin; row < end; ++row) softmax_row(args.x.as<T>() + row * n, args.out.as<T>() + row * n, n);
  });
}

}  // namespace atb_core::cpu::ATB_CPU_LEVEL
