// SPDX-License-Identifier: Apache-2.0
// What becomes of sums of integers, written once on F16 and I16. Include after the level's vec_*.h and ints_*.h.
#pragma once

#include <cstdint>
#include <cstring>
#include <type_traits>

#include "cpu/kernels/linear_kernel.h"
#include "cpu/kernels/vec_types.h"

namespace atb_core::cpu::ATB_CPU_LEVEL {
namespace {

template <typename Out>
void finish_ints_to(const FinishJob& job) {
  constexpr int64_t kBlock = kBlockColumns;
  const auto* bias = static_cast<const int32_t*>(job.bias);
  for (int64_t r = 0; r < job.rows; ++r) {
    const float* acc = job.acc + r * job.acc_ld;
    Out* out = static_cast<Out*>(job.out) + r * job.out_ld;
    for (int64_t c = 0; c < job.columns; c += kBlock) {
      const int64_t rest = job.columns - c < kBlock ? job.columns - c : kBlock;
      I16 sum = load_ints(acc + c);
      if (bias != nullptr) {
        int32_t some[kBlock] = {};
        std::memcpy(some, bias + c, static_cast<size_t>(rest) * sizeof(int32_t));
        sum = sum + load_ints(some);
      }
      if constexpr (std::is_same_v<Out, int32_t>) {
        int32_t some[kBlock];
        store_ints(some, sum);
        std::memcpy(out + c, some, static_cast<size_t>(rest) * sizeof(int32_t));
      } else {
        const bool whole = rest == kBlock;
        F16 value = to_float(sum) * (whole ? load(job.scales + c) : load_n(job.scales + c, static_cast<int>(rest)));
        if (job.row_scales != nullptr) value = value * set1(job.row_scales[r]);
        if (whole) {
          store(out + c, value);
        } else {
          store_n(out + c, value, static_cast<int>(rest));
        }
      }
    }
  }
}

inline void finish_ints(const FinishJob& job) {
  if (job.out_dtype == DataType::i32) return finish_ints_to<int32_t>(job);
  if (job.out_dtype == DataType::bf16) return finish_ints_to<Bf16>(job);
  if (job.out_dtype == DataType::f16) return finish_ints_to<Half>(job);
  finish_ints_to<float>(job);
}

}  // namespace
}  // namespace atb_core::cpu::ATB_CPU_LEVEL
