// SPDX-License-Identifier: Apache-2.0
// Powers of two on F16 for the levels that have no instructions for them. The end of their vec_*.h includes it.
#pragma once

namespace atb_core::cpu::ATB_CPU_LEVEL {

// Returns the integer nearest to x, at least -128, for times_exp2(); `rest` is what x has beyond it. NaN stays NaN.
inline F16 nearest_exponent(F16 x, F16& rest) {
  const F16 shift = set1(0x1.8p23F);  // moves the integer into the low bits
  x = max(set1(-127.5F), x);
  const F16 shifted = x + shift;
  rest = x - (shifted - shift);
  return shifted;
}

// a * 2^exponent, for a from 1 to 2; below 2^-126 zero or a denormal number, which whoever reads it flushes.
inline F16 times_exp2(F16 a, F16 exponent) { return add_to_exponent(a, exponent); }

}  // namespace atb_core::cpu::ATB_CPU_LEVEL
