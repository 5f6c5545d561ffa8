// SPDX-License-Identifier: Apache-2.0
// Bias, gate and rounding, written once on F16. Include after the level's vec_*.h.
#pragma once

#include <cstdint>
#include <type_traits>

#include "cpu/kernels/linear_kernel.h"
#include "cpu/kernels/math-inl.h"
#include "cpu/kernels/vec_types.h"

namespace atb_core::cpu::ATB_CPU_LEVEL {
namespace {

template <typename T>
F16 rounded(F16 x) {
  if constexpr (std::is_same_v<T, Bf16>) return rounded_to_bf16(x);
  if constexpr (std::is_same_v<T, float>) return x;
  T lanes[kBlockColumns];
  store(lanes, x);
  return load(lanes);
}

template <typename T>
F16 load_lanes(const T* p, int64_t n) {
  return n >= kBlockColumns ? load(p) : load_n(p, static_cast<int>(n));
}
template <typename T>
void store_lanes(T* p, F16 x, int64_t n) {
  if (n >= kBlockColumns) return store(p, x);
  store_n(p, x, static_cast<int>(n));
}

// Writes what value(job, r, c, n) returns for row r and the n columns from c on, or silu(that of the gate) times that.
template <typename Out, typename Value>
void finish_values(const FinishJob& job, Value value) {
  for (int64_t r = 0; r < job.rows; ++r) {
    Out* out = static_cast<Out*>(job.out) + r * job.out_ld;
    if (job.gate == nullptr) {
      for (int64_t c = 0; c < job.columns; c += kBlockColumns) {
        const int64_t n = job.columns - c;
        store_lanes(out + c, value(job, r, c, n), n);
      }
    } else {
      for (int64_t c = 0; c < job.columns; c += kBlockColumns) {
        const int64_t n = job.columns - c;
        const F16 gate = rounded<Out>(value(*job.gate, r, c, n)), up = rounded<Out>(value(job, r, c, n));
        store_lanes(out + c, silu_of<Out>(gate) * up, n);
      }
    }
  }
}

template <typename Out, typename Bias>
void finish_rows(const FinishJob& job) {
  finish_values<Out>(job, [](const FinishJob& of, int64_t r, int64_t c, int64_t n) {
    const F16 sum = load_lanes(of.acc + r * of.acc_ld + c, n);
    return of.bias == nullptr ? sum : sum + load_lanes(static_cast<const Bias*>(of.bias) + c, n);
  });
}

template <typename Out>
void finish_to(const FinishJob& job) {
  if (job.bias_dtype == DataType::bf16) return finish_rows<Out, Bf16>(job);
  if (job.bias_dtype == DataType::f16) return finish_rows<Out, Half>(job);
  finish_rows<Out, float>(job);
}

inline void finish(const FinishJob& job) {
  if (job.out_dtype == DataType::bf16) return finish_to<Bf16>(job);
  if (job.out_dtype == DataType::f16) return finish_to<Half>(job);
  finish_to<float>(job);
}

}  // namespace
}  // namespace atb_core::cpu::ATB_CPU_LEVEL
