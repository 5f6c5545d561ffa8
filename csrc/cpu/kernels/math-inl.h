// SPDX-License-Identifier: Apache-2.0
// Functions on F16, from correctly rounded operations only, so that every level gives the same bits. The polynomials
// are minimax fits of relative error; test_kernels_math.cpp holds the errors stated here (in ulp of the result).
#pragma once

#include <cmath>
#include <type_traits>

#include "cpu/kernels/vec_types.h"

namespace atb_core::cpu::ATB_CPU_LEVEL {

template <typename... Rest>
inline F16 polynomial(F16, float last) {
  return set1(last);
}
// c0 + c1*x + c2*x^2 + ... by Horner's rule.
template <typename... Rest>
inline F16 polynomial(F16 x, float c0, float c1, Rest... rest) {
  return fma(polynomial(x, c1, rest...), x, set1(c0));
}

// Adding this rounds a float of magnitude below 2^22 to an integer, which then stands in the low bits.
inline constexpr float kRoundingShift = 0x1.8p23F;

// exp without the checks above and for NaN, where arguments are known to be at most zero (or NaN).
inline F16 exp_of_nonpositive(F16 x) {
  const F16 shifted = fma(x, set1(1.44269502F), set1(kRoundingShift));
  const F16 n = shifted - set1(kRoundingShift);
  F16 r = fma(n, set1(-0.693147182F), x);
  r = fma(n, set1(1.90465421e-9F), r);
  const F16 tail = polynomial(r, 0.49999994F, 0.166665152F, 0.041668456F, 0.00836941879F, 0.00138131424F);
  const F16 power = fma(r * r, tail, r) + set1(1.0F);
  // Below this the result is denormal, that is zero.
  return select(lt(x, set1(-87.33654F)), zero(), add_to_exponent(power, shifted));
}

// Lane i of the result is the maximum of rows[i], which are overwritten.
inline F16 max_of_each(F16 (&rows)[16]) {
  transpose(rows);
  for (int step = 8; step > 0; step /= 2)
    for (int i = 0; i < step; ++i) rows[i] = max(rows[i], rows[i + step]);
  return rows[0];
}

inline constexpr float kLog2E = 1.44269502F;

// 2^(x * factor + shift + 1/2), rounded to bfloat16, for exponents up to about zero, or NaN; from -127 down zero, and above
// it up to -126 zero or a denormal number, which whoever reads it flushes. With n the integer nearest to the exponent
// minus a half, what remains is g + 1/2 with g in [-1/2, 1/2], and 2^(g + 1/2) is in [1, 2]. There a constant that is half
// a unit of bfloat16 (2^-8) greater makes cutting off the low half a rounding. The polynomial is a minimax fit of relative
// error 2^-13.7, a twentieth of the rounding's.
inline F16 exp2_to_bf16(F16 x, F16 factor, F16 shift) {
  F16 rest;
  const F16 nearest = nearest_exponent(fma(x, factor, shift), rest);
  return high_bf16(times_exp2(polynomial(rest, 1.4141119F + 0x1p-8F, 0.9804191F, 0.34310395F, 0.07802452F), nearest));
}

// 1.1 ulp.
inline F16 exp(F16 x) {
  const F16 y = select(gt(x, set1(88.72283F)), set1(HUGE_VALF), exp_of_nonpositive(x));
  return select(is_nan(x), x, y);
}

// 2.5 ulp.
inline F16 sigmoid(F16 x) { return set1(1.0F) / (set1(1.0F) + exp(neg(x))); }

// 2.5 ulp.
inline F16 silu(F16 x) { return x / (set1(1.0F) + exp(neg(x))); }

// x / (1 + exp(-x)) for what is rounded to bfloat16 afterwards: a relative error below 2^-12.7, a fourteenth of the rounding's.
// With e = exp(-|x|) the factor of x is 1 / (1 + e), or e times that for x below zero, so that nothing overflows and the
// divider, which is slow, has no part. Both polynomials are minimax fits, of 2^-13.4 and 2^-14.3; e is found as in
// exp2_to_bf16(), and its polynomial is a little more than 2 at 1/2, so that e is zero where nearest_exponent() ends.
inline F16 silu_to_bf16(F16 x) {
  F16 rest;
  const F16 nearest = nearest_exponent(fma(abs(x), set1(-kLog2E), set1(-0.5F)), rest);
  const F16 e = times_exp2(polynomial(rest, 1.4140877F, 0.9802804F, 0.34347206F, 0.07924062F), nearest);
  const F16 inverse =
      polynomial(e, 0.999948978F, -0.996275723F, 0.953420758F, -0.770572901F, 0.417937875F, -0.104484469F);
  return x * inverse * select(lt(x, zero()), e, set1(1.0F));
}

// silu() as exact as values of type T need it.
template <typename T>
inline F16 silu_of(F16 x) {
  if constexpr (std::is_same_v<T, Bf16>) return silu_to_bf16(x);
  return silu(x);
}

// 2 ulp.
inline F16 tanh(F16 x) {
  const F16 a = abs(x);
  const F16 square = x * x;
  const F16 tail = polynomial(square, -0.333332777F, 0.133313313F, -0.0537300073F, 0.0206061807F, -0.00566698052F);
  const F16 small = fma(x * square, tail, x);
  const F16 large = set1(1.0F) - set1(2.0F) / (exp(a + a) + set1(1.0F));
  return copy_sign(select(lt(a, set1(0.625F)), small, large), x);
}

// 2 ulp. From 0.92 on, 1 - exp(fit of log(erfc)); beyond 4 that is 1.
inline F16 erf(F16 x) {
  const F16 a = abs(x);
  const F16 tail = polynomial(x * x, 0.128379166F, -0.376126319F, 0.112836875F, -0.0268589444F, 0.00519991061F,
                              -0.000813005026F, 8.3169085e-05F);
  const F16 small = fma(x, tail, x);
  const F16 log_erfc = polynomial(min(set1(4.0F), a), 0.000174683431F, -1.12951493F, -0.633346915F, -0.108280078F,
                                  0.0251194183F, -0.00417105947F, 0.000434461806F, -2.10949747e-05F);
  const F16 large = set1(1.0F) - exp(log_erfc);
  return copy_sign(select(lt(a, set1(0.92F)), small, large), x);
}

// 1.5 ulp. Zero and denormals give -inf.
inline F16 log(F16 x) {
  F16 mantissa;
  const F16 e = split_exponent(x, mantissa);
  const F16 f = mantissa - set1(1.0F);
  const F16 square = f * f;
  const F16 tail = polynomial(f, 0.333333135F, -0.250000089F, 0.200021192F, -0.166679963F, 0.142195508F, -0.124055922F,
                              0.118881777F, -0.116756387F, 0.0674659163F);
  F16 y = f * square * tail;
  y = fma(e, set1(-1.90465421e-9F), y);
  y = fma(square, set1(-0.5F), y);
  y = fma(e, set1(0.693147182F), f + y);
  y = select(lt(x, set1(0x1p-126F)), set1(-HUGE_VALF), y);
  y = select(lt(x, zero()), set1(NAN), y);
  y = select(eq(x, set1(HUGE_VALF)), x, y);
  return select(is_nan(x), x, y);
}

// The remainder of x by pi/2 for one large x, in double; the quadrant goes to the low bits of `shifted`.
inline float reduce_large_angle(float x, float& shifted) {
  const double n = std::floor(static_cast<double>(x) * 0.6366197723675814 + 0.5);
  const double r = std::fma(n, -6.123233995736766e-17, std::fma(n, -1.5707963267948966, static_cast<double>(x)));
  shifted = kRoundingShift + static_cast<float>(n - 4.0 * std::floor(n * 0.25));
  // Beyond 2^53 quadrants n is not exact; keep the polynomials in their range. Infinities and NaN end as NaN.
  if (r > 0.8 || r < -0.8) return 0.0F;
  return static_cast<float>(r);
}

// sin(x + quarter_turns * pi/2). Up to 6 million radians three fused steps with the parts of pi/2 leave an error
// of 2.5 ulp, also next to the zeros; beyond, the same in double, good to some 1e12 radians.
inline F16 sin_turned(F16 x, float quarter_turns) {
  F16 shifted = fma(x, set1(0.636619747F), set1(kRoundingShift));
  const F16 n = shifted - set1(kRoundingShift);
  F16 r = fma(n, set1(-1.57079637F), x);
  r = fma(n, set1(4.37113883e-8F), r);
  r = fma(n, set1(1.71512451e-15F), r);
  if (to_bits(lt(abs(x), set1(6.0e6F))) != 0xffffU) {
    float xs[16], rs[16], ss[16];
    store(xs, x);
    store(rs, r);
    store(ss, shifted);
    for (int i = 0; i < 16; ++i)
      if (!(std::fabs(xs[i]) < 6.0e6F)) rs[i] = reduce_large_angle(xs[i], ss[i]);
    r = load(rs);
    shifted = load(ss);
  }
  const F16 quadrant = shifted + set1(quarter_turns);
  const F16 square = r * r;
  const F16 sine =
      fma(r * square, polynomial(square, -0.166666672F, 0.0083333198F, -0.000198368929F, 2.69957741e-06F), r);
  const F16 cos_tail = polynomial(square, 0.0416666679F, -0.00138888706F, 2.47967764e-05F, -2.70296056e-07F);
  const F16 cosine = fma(square * square, cos_tail, fma(square, set1(-0.5F), set1(1.0F)));
  const F16 y = select(has_bit(quadrant, 1), cosine, sine);
  return select(has_bit(quadrant, 2), neg(y), y);
}
inline F16 sin(F16 x) { return sin_turned(x, 0.0F); }
inline F16 cos(F16 x) { return sin_turned(x, 1.0F); }

}  // namespace atb_core::cpu::ATB_CPU_LEVEL
