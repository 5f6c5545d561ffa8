// SPDX-License-Identifier: Apache-2.0
// Bias and rounding, written once on F16. Include after the level's vec_*.h.
#pragma once

#include <cstdint>

#include "cpu/kernels/linear_kernel.h"
#include "cpu/kernels/vec_types.h"

namespace atb_core::cpu::ATB_CPU_LEVEL {
namespace {

template <typename Out, typename Bias>
void finish_rows(const FinishJob& job, const Bias* bias) {
  const int64_t whole = job.columns / kBlockColumns * kBlockColumns;
  const int rest = static_cast<int>(job.columns - whole);
  for (int64_t r = 0; r < job.rows; ++r) {
    const float* acc = job.acc + r * job.acc_ld;
    Out* out = static_cast<Out*>(job.out) + r * job.out_ld;
    for (int64_t c = 0; c < whole; c += kBlockColumns) {
      store(out + c, bias == nullptr ? load(acc + c) : load(acc + c) + load(bias + c));
    }
    if (rest == 0) continue;
    const F16 last = load_n(acc + whole, rest);
    store_n(out + whole, bias == nullptr ? last : last + load_n(bias + whole, rest), rest);
  }
}

template <typename Out>
void finish_to(const FinishJob& job) {
  if (job.bias_dtype == DataType::bf16) return finish_rows<Out>(job, static_cast<const Bf16*>(job.bias));
  if (job.bias_dtype == DataType::f16) return finish_rows<Out>(job, static_cast<const Half*>(job.bias));
  finish_rows<Out>(job, static_cast<const float*>(job.bias));
}

inline void finish(const FinishJob& job) {
  if (job.out_dtype == DataType::bf16) return finish_to<Bf16>(job);
  if (job.out_dtype == DataType::f16) return finish_to<Half>(job);
  finish_to<float>(job);
}

}  // namespace
}  // namespace atb_core::cpu::ATB_CPU_LEVEL
