// SPDX-License-Identifier: Apache-2.0
// Include after vec_portable.h.
#pragma once

#include "cpu/kernels/vec_types.h"

namespace atb_core::cpu::ATB_CPU_LEVEL {
namespace {

// fma(a, b, sum) where a and b are bf16 or f16 values. std::fma is a library call where the target has no
// such instruction. Here a product has at most 22 significant bits, so it is exact in double, and rounding
// its sum with a float to double (53 >= 2 * 24 + 2 bits) and then to float gives what rounding once gives.
// The compiler makes vectors of it.
inline F16 fma_short(const F16& a, const F16& b, const F16& sum) {
#if defined(FP_FAST_FMAF)
  return fma(a, b, sum);
#else
  return each([&](int i) {
    return static_cast<float>(static_cast<double>(a.v[i]) * static_cast<double>(b.v[i]) +
                              static_cast<double>(sum.v[i]));
  });
#endif
}

}  // namespace
}  // namespace atb_core::cpu::ATB_CPU_LEVEL
