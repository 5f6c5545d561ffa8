// SPDX-License-Identifier: Apache-2.0
// I16: sixteen 32-bit integers, here four NEON registers. See ints_portable.h for the meaning.
#pragma once

#include <arm_neon.h>

#include <cstddef>
#include <cstdint>
#include <cstring>

namespace atb_core::cpu::ATB_CPU_LEVEL {

struct I16 {
  int32x4_t a, b, c, d;
};
struct B64 {
  uint8x16_t a, b, c, d;
};

inline B64 load_bytes(const std::byte* p) {
  const auto* q = reinterpret_cast<const uint8_t*>(p);
  return {vld1q_u8(q), vld1q_u8(q + 16), vld1q_u8(q + 32), vld1q_u8(q + 48)};
}
template <typename F>
inline B64 each_register(B64 x, F f) {
  return {f(x.a), f(x.b), f(x.c), f(x.d)};
}
inline B64 operator|(B64 x, B64 y) {
  return {vorrq_u8(x.a, y.a), vorrq_u8(x.b, y.b), vorrq_u8(x.c, y.c), vorrq_u8(x.d, y.d)};
}
inline B64 low_nibbles(B64 x) {
  return each_register(x, [](uint8x16_t v) { return vandq_u8(v, vdupq_n_u8(15)); });
}
inline B64 high_nibbles(B64 x) {
  return each_register(x, [](uint8x16_t v) { return vshrq_n_u8(v, 4); });
}
template <int Left, int Mask>
inline B64 bit_at_4(B64 x) {
  return each_register(x, [](uint8x16_t v) { return vandq_u8(vshlq_u8(v, vdupq_n_s8(Left)), vdupq_n_u8(Mask)); });
}

inline I16 int_set1(int32_t x) {
  const int32x4_t v = vdupq_n_s32(x);
  return {v, v, v, v};
}
inline I16 operator*(I16 x, I16 y) {
  return {vmulq_s32(x.a, y.a), vmulq_s32(x.b, y.b), vmulq_s32(x.c, y.c), vmulq_s32(x.d, y.d)};
}
inline I16 operator+(I16 x, I16 y) {
  return {vaddq_s32(x.a, y.a), vaddq_s32(x.b, y.b), vaddq_s32(x.c, y.c), vaddq_s32(x.d, y.d)};
}
inline F16 to_float(I16 x) { return {vcvtq_f32_s32(x.a), vcvtq_f32_s32(x.b), vcvtq_f32_s32(x.c), vcvtq_f32_s32(x.d)}; }
inline I16 load_ints(const void* p) {
  const auto* q = static_cast<const int32_t*>(p);
  return {vld1q_s32(q), vld1q_s32(q + 4), vld1q_s32(q + 8), vld1q_s32(q + 12)};
}
inline void store_ints(void* p, I16 x) {
  auto* q = static_cast<int32_t*>(p);
  vst1q_s32(q, x.a);
  vst1q_s32(q + 4, x.b);
  vst1q_s32(q + 8, x.c);
  vst1q_s32(q + 12, x.d);
}
inline I16 widened(int16x8_t low, int16x8_t high) {
  return {vmovl_s16(vget_low_s16(low)), vmovl_high_s16(low), vmovl_s16(vget_low_s16(high)), vmovl_high_s16(high)};
}
inline I16 load_u8(const std::byte* p) {
  const uint8x16_t bytes = vld1q_u8(reinterpret_cast<const uint8_t*>(p));
  return widened(vreinterpretq_s16_u16(vmovl_u8(vget_low_u8(bytes))), vreinterpretq_s16_u16(vmovl_high_u8(bytes)));
}
inline I16 load_i8(const std::byte* p) {
  const int8x16_t bytes = vld1q_s8(reinterpret_cast<const int8_t*>(p));
  return widened(vmovl_s8(vget_low_s8(bytes)), vmovl_high_s8(bytes));
}

#if defined(__ARM_FEATURE_DOTPROD)
using Value = int8x16_t;
inline Value broadcast(const int8_t* p) {
  int32_t word;
  std::memcpy(&word, p, sizeof word);
  return vreinterpretq_s8_s32(vdupq_n_s32(word));
}
#endif

#if defined(__ARM_FEATURE_MATMUL_INT8)
using Words = B64;
template <int Bits>
inline constexpr int kWordZero = 0;
template <int Bits>
inline Words words(B64 x) {
  return x;
}
inline I16 dot(I16 sum, const Words& w, Value x) {
  return {vusdotq_s32(sum.a, w.a, x), vusdotq_s32(sum.b, w.b, x), vusdotq_s32(sum.c, w.c, x),
          vusdotq_s32(sum.d, w.d, x)};
}

// Sums of two rows, two columns of both in each register.
#define ATB_ROW_PAIRS
struct PairSums {
  int32x4_t v[8];
};
inline PairSums pair_sums(I16 x, I16 y) {
  return {{vzip1q_s32(x.a, y.a), vzip2q_s32(x.a, y.a), vzip1q_s32(x.b, y.b), vzip2q_s32(x.b, y.b), vzip1q_s32(x.c, y.c),
           vzip2q_s32(x.c, y.c), vzip1q_s32(x.d, y.d), vzip2q_s32(x.d, y.d)}};
}
inline I16 first_of(const PairSums& p) {
  return {vuzp1q_s32(p.v[0], p.v[1]), vuzp1q_s32(p.v[2], p.v[3]), vuzp1q_s32(p.v[4], p.v[5]),
          vuzp1q_s32(p.v[6], p.v[7])};
}
inline I16 second_of(const PairSums& p) {
  return {vuzp2q_s32(p.v[0], p.v[1]), vuzp2q_s32(p.v[2], p.v[3]), vuzp2q_s32(p.v[4], p.v[5]),
          vuzp2q_s32(p.v[6], p.v[7])};
}
// Two successive words, 8 elements of two columns in each register.
struct PairWords {
  uint8x16_t v[8];
};
inline PairWords pair_words(B64 x, B64 y) {
  const auto low = [](uint8x16_t p, uint8x16_t q) {
    return vreinterpretq_u8_u32(vzip1q_u32(vreinterpretq_u32_u8(p), vreinterpretq_u32_u8(q)));
  };
  const auto high = [](uint8x16_t p, uint8x16_t q) {
    return vreinterpretq_u8_u32(vzip2q_u32(vreinterpretq_u32_u8(p), vreinterpretq_u32_u8(q)));
  };
  return {{low(x.a, y.a), high(x.a, y.a), low(x.b, y.b), high(x.b, y.b), low(x.c, y.c), high(x.c, y.c), low(x.d, y.d),
           high(x.d, y.d)}};
}
// Sums with the products of 8 elements at p and q, of a row each.
inline PairSums dot(PairSums sum, const PairWords& w, const int8_t* p, const int8_t* q) {
  const int8x16_t rows = vcombine_s8(vld1_s8(p), vld1_s8(q));
  for (int i = 0; i < 8; ++i) sum.v[i] = vusmmlaq_s32(sum.v[i], w.v[i], rows);
  return sum;
}
#elif defined(__ARM_FEATURE_DOTPROD)
// Signed bytes: sdot takes no others together with signed ones.
using Words = B64;
template <int Bits>
inline constexpr int kWordZero = Bits == 8 ? 128 : 0;
template <int Bits>
inline Words words(B64 x) {
  if constexpr (Bits < 8) return x;
  return each_register(x, [](uint8x16_t v) { return veorq_u8(v, vdupq_n_u8(128)); });
}
inline I16 dot(I16 sum, const Words& w, Value x) {
  const auto add = [&](int32x4_t s, uint8x16_t v) { return vdotq_s32(s, vreinterpretq_s8_u8(v), x); };
  return {add(sum.a, w.a), add(sum.b, w.b), add(sum.c, w.c), add(sum.d, w.d)};
}
#else
// Bytes as 16-bit integers, the even ones of each word apart from the odd ones.
struct Words {
  int16x8_t even[4], odd[4];
};
struct Value {
  int16x8_t even, odd;
};
template <int Bits>
inline constexpr int kWordZero = 0;
template <int Bits>
inline Words words(B64 x) {
  const auto even = [](uint8x16_t v) {
    return vreinterpretq_s16_u16(vandq_u16(vreinterpretq_u16_u8(v), vdupq_n_u16(255)));
  };
  const auto odd = [](uint8x16_t v) { return vreinterpretq_s16_u16(vshrq_n_u16(vreinterpretq_u16_u8(v), 8)); };
  return {{even(x.a), even(x.b), even(x.c), even(x.d)}, {odd(x.a), odd(x.b), odd(x.c), odd(x.d)}};
}
inline Value broadcast(const int8_t* p) {
  int32_t word;
  std::memcpy(&word, p, sizeof word);
  const int16x8_t x = vreinterpretq_s16_s32(vdupq_n_s32(word));
  return {vshrq_n_s16(vshlq_n_s16(x, 8), 8), vshrq_n_s16(x, 8)};
}
inline int32x4_t dot(int32x4_t sum, int16x8_t even, int16x8_t odd, const Value& x) {
  const int32x4_t low = vmull_s16(vget_low_s16(even), vget_low_s16(x.even)), high = vmull_high_s16(even, x.even);
  const int32x4_t left = vmlal_s16(low, vget_low_s16(odd), vget_low_s16(x.odd));
  return vaddq_s32(sum, vpaddq_s32(left, vmlal_high_s16(high, odd, x.odd)));
}
inline I16 dot(I16 sum, const Words& w, const Value& x) {
  return {dot(sum.a, w.even[0], w.odd[0], x), dot(sum.b, w.even[1], w.odd[1], x), dot(sum.c, w.even[2], w.odd[2], x),
          dot(sum.d, w.even[3], w.odd[3], x)};
}
#endif

}  // namespace atb_core::cpu::ATB_CPU_LEVEL
