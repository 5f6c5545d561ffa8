// SPDX-License-Identifier: Apache-2.0
// What becomes of sums of integers, written once on F16 and I16. Include after the level's vec_*.h and ints_*.h.
#pragma once

#include <cstdint>
#include <cstring>

#include "cpu/kernels/linear_finish-inl.h"
#include "cpu/kernels/linear_kernel.h"

namespace atb_core::cpu::ATB_CPU_LEVEL {
namespace {

// The sums of row r and the columns from c on, with the bias of n of them.
inline I16 biased_sums(const FinishJob& job, int64_t r, int64_t c, int64_t n) {
  const I16 sums = load_ints(job.acc + r * job.acc_ld + c);
  if (job.bias == nullptr) return sums;
  const auto* bias = static_cast<const int32_t*>(job.bias) + c;
  if (n >= kBlockColumns) return sums + load_ints(bias);
  int32_t some[kBlockColumns] = {};
  std::memcpy(some, bias, static_cast<size_t>(n) * sizeof(int32_t));
  return sums + load_ints(some);
}

template <typename Out>
void finish_ints_to(const FinishJob& job) {
  finish_values<Out>(job, [](const FinishJob& of, int64_t r, int64_t c, int64_t n) {
    const F16 value = to_float(biased_sums(of, r, c, n)) * load_lanes(of.scales + c, n);
    return of.row_scales == nullptr ? value : value * set1(of.row_scales[r]);
  });
}

inline void finish_int_sums(const FinishJob& job) {
  for (int64_t r = 0; r < job.rows; ++r) {
    auto* out = static_cast<int32_t*>(job.out) + r * job.out_ld;
    for (int64_t c = 0; c < job.columns; c += kBlockColumns) {
      const int64_t n = job.columns - c < kBlockColumns ? job.columns - c : kBlockColumns;
      int32_t some[kBlockColumns];
      store_ints(some, biased_sums(job, r, c, n));
      std::memcpy(out + c, some, static_cast<size_t>(n) * sizeof(int32_t));
    }
  }
}

inline void finish_ints(const FinishJob& job) {
  if (job.out_dtype == DataType::i32) return finish_int_sums(job);
  if (job.out_dtype == DataType::bf16) return finish_ints_to<Bf16>(job);
  if (job.out_dtype == DataType::f16) return finish_ints_to<Half>(job);
  finish_ints_to<float>(job);
}

}  // namespace
}  // namespace atb_core::cpu::ATB_CPU_LEVEL
