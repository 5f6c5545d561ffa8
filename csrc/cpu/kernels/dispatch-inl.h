// SPDX-License-Identifier: Apache-2.0
// From a DataType to a C++ type, and loops over rows in lanes.
#pragma once

#include "cpu/kernels/kernels.h"

namespace atb_core::cpu::ATB_CPU_LEVEL {

// Calls f(T{}) with the element type of a floating dtype; anything else is an error of the node.
template <typename F>
inline void with_float_type(DataType dtype, const Worker& worker, F f) {
  switch (dtype) {
    case DataType::f32:
      return f(float{});
    case DataType::f16:
      return f(Half{});
    case DataType::bf16:
      return f(Bf16{});
    default:
      worker.error->report("the kernel needs a floating dtype; it got dtype number", 0, static_cast<int64_t>(dtype), 0);
  }
}

// Up to sixteen elements at p: load16(p, 16) is the plain load.
template <typename T>
inline F16 load_up_to_16(const T* p, int64_t n) {
  return n >= 16 ? load(p) : load_n(p, static_cast<int>(n));
}
template <typename T>
inline void store_up_to_16(T* p, F16 v, int64_t n) {
  if (n >= 16) {
    store(p, v);
  } else {
    store_n(p, v, static_cast<int>(n));
  }
}

// out[i] = op(in[i]) for i in [0, n).
template <typename T, typename Op>
inline void map(const T* in, T* out, int64_t n, Op op) {
  int64_t i = 0;
  for (; i + 16 <= n; i += 16) store(out + i, op(load(in + i)));
  if (i < n) store_n(out + i, op(load_n(in + i, static_cast<int>(n - i))), static_cast<int>(n - i));
}

// out[i] = op(a[i], b[i]) for i in [0, n).
template <typename A, typename B, typename T, typename Op>
inline void map(const A* a, const B* b, T* out, int64_t n, Op op) {
  int64_t i = 0;
  for (; i + 16 <= n; i += 16) store(out + i, op(load(a + i), load(b + i)));
  if (i < n) {
    const int rest = static_cast<int>(n - i);
    store_n(out + i, op(load_n(a + i, rest), load_n(b + i, rest)), rest);
  }
}

// The granularity of work on flat arrays: whole cache lines for each thread, whatever the dtype.
inline constexpr int64_t kGrain = 64;

}  // namespace atb_core::cpu::ATB_CPU_LEVEL
