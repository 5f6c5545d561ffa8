// SPDX-License-Identifier: Apache-2.0
// F16: sixteen float lanes in plain C++. This is the definition of the operations; the other vec_*.h have the
// same ones with the same results, bit for bit (except the payload of a NaN).
#pragma once

#include <bit>
#include <cmath>
#include <cstring>

#include "cpu/kernels/vec_types.h"

namespace atb_core::cpu::ATB_CPU_LEVEL {

struct F16 {
  float v[16];
};
struct M16 {
  bool v[16];
};

template <typename Op>
inline F16 each(Op op) {
  F16 r;
  for (int i = 0; i < 16; ++i) r.v[i] = op(i);
  return r;
}
template <typename Op>
inline M16 each_mask(Op op) {
  M16 r;
  for (int i = 0; i < 16; ++i) r.v[i] = op(i);
  return r;
}
inline uint32_t bits_of(float x) { return std::bit_cast<uint32_t>(x); }
inline float float_of(uint32_t u) { return std::bit_cast<float>(u); }

inline F16 zero() { return F16{}; }
inline F16 set1(float x) {
  return each([&](int) { return x; });
}
inline F16 operator+(const F16& a, const F16& b) {
  return each([&](int i) { return a.v[i] + b.v[i]; });
}
inline F16 operator-(const F16& a, const F16& b) {
  return each([&](int i) { return a.v[i] - b.v[i]; });
}
inline F16 operator*(const F16& a, const F16& b) {
  return each([&](int i) { return a.v[i] * b.v[i]; });
}
inline F16 operator/(const F16& a, const F16& b) {
  return each([&](int i) { return a.v[i] / b.v[i]; });
}
// a * b + c, rounded once.
inline F16 fma(const F16& a, const F16& b, const F16& c) {
  return each([&](int i) { return std::fma(a.v[i], b.v[i], c.v[i]); });
}
// The second operand when they are equal or either is NaN, as x86 has it. A denormal comes out as zero: the processor
// does that in arithmetic by itself when the kernels run, but not where a number is only chosen.
inline float flushed(float x) { return (bits_of(x) & 0x7f800000U) == 0 ? float_of(bits_of(x) & 0x80000000U) : x; }
inline float min(float a, float b) { return flushed(a < b ? a : b); }
inline float max(float a, float b) { return flushed(a > b ? a : b); }
inline F16 min(const F16& a, const F16& b) {
  return each([&](int i) { return min(a.v[i], b.v[i]); });
}
inline F16 max(const F16& a, const F16& b) {
  return each([&](int i) { return max(a.v[i], b.v[i]); });
}
// The one of two magnitudes whose bits are the greater integer: of a NaN and a number, the NaN.
inline F16 max_bits(const F16& a, const F16& b) {
  return each([&](int i) { return bits_of(a.v[i]) > bits_of(b.v[i]) ? a.v[i] : b.v[i]; });
}
inline F16 sqrt(const F16& a) {
  return each([&](int i) { return std::sqrt(a.v[i]); });
}
inline F16 neg(const F16& a) {
  return each([&](int i) { return float_of(bits_of(a.v[i]) ^ 0x80000000U); });
}
inline F16 abs(const F16& a) {
  return each([&](int i) { return float_of(bits_of(a.v[i]) & 0x7fffffffU); });
}
inline F16 copy_sign(const F16& magnitude, const F16& sign) {
  return each(
      [&](int i) { return float_of((bits_of(magnitude.v[i]) & 0x7fffffffU) | (bits_of(sign.v[i]) & 0x80000000U)); });
}

// Comparisons are false when an operand is NaN.
inline M16 lt(const F16& a, const F16& b) {
  return each_mask([&](int i) { return a.v[i] < b.v[i]; });
}
inline M16 gt(const F16& a, const F16& b) { return lt(b, a); }
inline M16 eq(const F16& a, const F16& b) {
  return each_mask([&](int i) { return a.v[i] == b.v[i]; });
}
inline M16 is_nan(const F16& a) {
  return each_mask([&](int i) { return a.v[i] != a.v[i]; });
}
// Lanes 0 .. n-1.
inline M16 first(int n) {
  return each_mask([&](int i) { return i < n; });
}
inline F16 select(const M16& m, const F16& yes, const F16& no) {
  return each([&](int i) { return m.v[i] ? yes.v[i] : no.v[i]; });
}
// Lane i in bit i.
inline uint32_t to_bits(const M16& m) {
  uint32_t bits = 0;
  for (int i = 0; i < 16; ++i) bits |= static_cast<uint32_t>(m.v[i]) << i;
  return bits;
}

inline float widen(float x) { return x; }
inline float widen(int8_t x) { return x; }
inline float widen(Bf16 x) { return float_of(static_cast<uint32_t>(x.bits) << 16); }
inline float widen(Half h) {
  const uint32_t sign = static_cast<uint32_t>(h.bits & 0x8000U) << 16;
  const uint32_t exponent = (h.bits >> 10) & 0x1fU;
  const uint32_t mantissa = h.bits & 0x3ffU;
  if (exponent == 0) {  // zero or denormal: mantissa * 2^-24, exact
    const float magnitude = static_cast<float>(mantissa) * 0x1p-24F;
    return float_of(bits_of(magnitude) | sign);
  }
  if (exponent == 31) {
    const uint32_t quiet = mantissa != 0 ? 0x400000U : 0U;
    return float_of(sign | 0x7f800000U | quiet | mantissa << 13);
  }
  return float_of(sign | (exponent + 112) << 23 | mantissa << 13);
}

// All rounding is to nearest, ties to even.
inline void narrow(float x, float* out) { *out = x; }
inline void narrow(float x, Bf16* out) {
  const uint32_t u = bits_of(x);
  const uint32_t rounded = x != x ? u | 0x400000U : u + 0x7fffU + ((u >> 16) & 1U);
  out->bits = static_cast<uint16_t>(rounded >> 16);
}
inline void narrow(float x, int8_t* out) {  // of -128 to 127; adding 1.5 * 2^23 rounds to an integer
  constexpr float kRound = 12582912;
  *out = static_cast<int8_t>(static_cast<int32_t>(x + kRound - kRound));
}
inline void narrow(float x, Half* out) {
  const uint32_t u = bits_of(x);
  const uint32_t sign = (u >> 16) & 0x8000U;
  const uint32_t magnitude = u & 0x7fffffffU;
  uint32_t bits = 0;
  if (magnitude > 0x7f800000U) {
    bits = 0x7e00U | ((magnitude >> 13) & 0x3ffU);
  } else if (magnitude >= 0x477ff000U) {  // 65520 and more round to infinity
    bits = 0x7c00U;
  } else if (magnitude >= 0x38800000U) {  // normal: 2^-14 and more; a carry moves into the exponent as it should
    bits = (magnitude - 0x38000000U + 0xfffU + ((magnitude >> 13) & 1U)) >> 13;
  } else if (magnitude >= 0x33000000U) {  // denormal: a multiple of 2^-24; less than 2^-25 gives zero
    const uint32_t shift = 126U - (magnitude >> 23);
    const uint32_t whole = (magnitude & 0x7fffffU) | 0x800000U;
    const uint32_t half_less = (1U << (shift - 1)) - 1U;
    bits = (whole + half_less + ((whole >> shift) & 1U)) >> shift;
  }
  out->bits = static_cast<uint16_t>(sign | bits);
}

template <typename T>
inline F16 load(const T* p) {
  return each([&](int i) { return widen(p[i]); });
}
// Lanes from n on are zero; their memory is not touched.
template <typename T>
inline F16 load_n(const T* p, int n) {
  return each([&](int i) { return i < n ? widen(p[i]) : 0.0F; });
}
template <typename T>
inline void store(T* p, const F16& a) {
  for (int i = 0; i < 16; ++i) narrow(a.v[i], p + i);
}
template <typename T>
inline void store_n(T* p, const F16& a, int n) {
  for (int i = 0; i < n; ++i) narrow(a.v[i], p + i);
}

// The order of every sum over lanes: (i, i+8), (i, i+4), (i, i+2), (i, i+1).
inline float horizontal_sum(F16 a) {
  for (int half = 8; half > 0; half /= 2)
    for (int i = 0; i < half; ++i) a.v[i] = a.v[i] + a.v[i + half];
  return a.v[0];
}
inline float horizontal_max(F16 a) {
  for (int half = 8; half > 0; half /= 2)
    for (int i = 0; i < half; ++i) a.v[i] = max(a.v[i], a.v[i + half]);
  return a.v[0];
}

// a * 2^n, by adding to the exponent field, where the low bits of t hold the integer n.
inline F16 add_to_exponent(const F16& a, const F16& t) {
  return each([&](int i) { return float_of(bits_of(a.v[i]) + (bits_of(t.v[i]) << 23)); });
}
// x = mantissa * 2^result with mantissa in [sqrt(1/2), sqrt(2)), for positive normal x.
inline F16 split_exponent(const F16& x, F16& mantissa) {
  F16 exponent;
  for (int i = 0; i < 16; ++i) {
    const int32_t e = static_cast<int32_t>(bits_of(x.v[i]) - 0x3f3504f3U) >> 23;
    mantissa.v[i] = float_of(bits_of(x.v[i]) - (static_cast<uint32_t>(e) << 23));
    exponent.v[i] = static_cast<float>(e);
  }
  return exponent;
}
inline M16 has_bit(const F16& a, uint32_t bit) {
  return each_mask([&](int i) { return (bits_of(a.v[i]) & bit) != 0; });
}

// Each lane taken as two bf16: the one at the lower address and the one at the higher (little endian).
inline F16 low_bf16(const F16& pairs) {
  return each([&](int i) { return float_of(bits_of(pairs.v[i]) << 16); });
}
inline F16 high_bf16(const F16& pairs) {
  return each([&](int i) { return float_of(bits_of(pairs.v[i]) & 0xffff0000U); });
}

// Each lane rounded to bf16, as a float.
inline F16 rounded_to_bf16(const F16& a) {
  return each([&](int i) {
    Bf16 rounded;
    narrow(a.v[i], &rounded);
    return widen(rounded);
  });
}
// `low` and `high` as 32 elements of 16 bits each: word i has element i of `low` in its low half, of `high` in its
// high half. `left` takes the first sixteen words.
inline void interleave(const F16& low, const F16& high, F16& left, F16& right) {
  const auto element = [](const F16& from, int i) { return bits_of(from.v[i / 2]) >> (16 * (i % 2)) & 0xffffU; };
  const auto word = [&](int i) { return float_of(element(low, i) | element(high, i) << 16); };
  const F16 first = each([&](int i) { return word(i); });
  right = each([&](int i) { return word(i + 16); });
  left = first;
}
// The high halves of the lanes of a, then of b, as 32 elements.
inline F16 join_bf16(const F16& a, const F16& b) {
  const auto high = [&](int i) { return bits_of(i < 16 ? a.v[i] : b.v[i - 16]) >> 16; };
  return each([&](int i) { return float_of(high(2 * i) | high(2 * i + 1) << 16); });
}
// Words of the high halves of two lanes, that of low in the low half; low halves of high are zero.
inline F16 pair_bf16(const F16& low, const F16& high) {
  return each([&](int i) { return float_of(bits_of(low.v[i]) >> 16 | bits_of(high.v[i])); });
}
// Of each eight elements, the words (x2 x0) (x3 x1) (x6 x4) (x7 x5), the low half first: see linear_kernel.h.
inline F16 chain_order(const F16& words) {
  const auto element = [&](int i) { return bits_of(words.v[i / 2]) >> (16 * (i % 2)) & 0xffffU; };
  return each([&](int i) {
    const int low = i / 2 * 4 + 2 + i % 2;
    return float_of(element(low) | element(low - 2) << 16);
  });
}

inline void transpose(F16 (&r)[16]) {
  for (int i = 0; i < 16; ++i)
    for (int j = 0; j < i; ++j) {
      const float t = r[i].v[j];
      r[i].v[j] = r[j].v[i];
      r[j].v[i] = t;
    }
}

}  // namespace atb_core::cpu::ATB_CPU_LEVEL

#include "cpu/kernels/vec_exponent-inl.h"
