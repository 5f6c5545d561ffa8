// SPDX-License-Identifier: Apache-2.0
// F16: sixteen float lanes, here four NEON registers. See vec_portable.h for the meaning.
#pragma once

#include <arm_neon.h>

#include <cstring>
#include <utility>

#include "cpu/kernels/vec_types.h"

namespace atb_core::cpu::ATB_CPU_LEVEL {

struct F16 {
  float32x4_t a, b, c, d;
};
struct M16 {
  uint32x4_t a, b, c, d;
};

inline uint32x4_t as_int(float32x4_t v) { return vreinterpretq_u32_f32(v); }
inline float32x4_t as_float(uint32x4_t v) { return vreinterpretq_f32_u32(v); }
inline uint16x8_t as_words(float32x4_t v) { return vreinterpretq_u16_f32(v); }
inline float32x4_t from_words(uint16x8_t v) { return vreinterpretq_f32_u16(v); }

// Each register of the result is f of the registers of the arguments.
template <typename F>
inline F16 each(F16 x, F f) {
  return {f(x.a), f(x.b), f(x.c), f(x.d)};
}
template <typename F>
inline F16 each(F16 x, F16 y, F f) {
  return {f(x.a, y.a), f(x.b, y.b), f(x.c, y.c), f(x.d, y.d)};
}
template <typename F>
inline M16 compare(F16 x, F16 y, F f) {
  return {f(x.a, y.a), f(x.b, y.b), f(x.c, y.c), f(x.d, y.d)};
}

inline F16 set1(float x) {
  const float32x4_t v = vdupq_n_f32(x);
  return {v, v, v, v};
}
inline F16 zero() { return set1(0.0F); }
inline F16 operator+(F16 x, F16 y) { return each(x, y, vaddq_f32); }
inline F16 operator-(F16 x, F16 y) { return each(x, y, vsubq_f32); }
inline F16 operator*(F16 x, F16 y) { return each(x, y, vmulq_f32); }
inline F16 operator/(F16 x, F16 y) { return each(x, y, vdivq_f32); }
inline F16 fma(F16 x, F16 y, F16 z) {
  return {vfmaq_f32(z.a, x.a, y.a), vfmaq_f32(z.b, x.b, y.b), vfmaq_f32(z.c, x.c, y.c), vfmaq_f32(z.d, x.d, y.d)};
}

// `fminnm` and `fmaxnm` treat equal operands and NaN unlike x86, and a selected denormal is not flushed by itself.
inline float32x4_t flushed(float32x4_t x) {
  const uint32x4_t normal = vtstq_u32(as_int(x), vdupq_n_u32(0x7f800000U));
  return as_float(vandq_u32(as_int(x), vorrq_u32(normal, vdupq_n_u32(0x80000000U))));
}
inline float32x4_t min(float32x4_t x, float32x4_t y) { return flushed(vbslq_f32(vcltq_f32(x, y), x, y)); }
inline float32x4_t max(float32x4_t x, float32x4_t y) { return flushed(vbslq_f32(vcgtq_f32(x, y), x, y)); }
inline float32x2_t max(float32x2_t x, float32x2_t y) {
  return vget_low_f32(max(vcombine_f32(x, x), vcombine_f32(y, y)));
}
inline F16 min(F16 x, F16 y) { return {min(x.a, y.a), min(x.b, y.b), min(x.c, y.c), min(x.d, y.d)}; }
inline F16 max(F16 x, F16 y) { return {max(x.a, y.a), max(x.b, y.b), max(x.c, y.c), max(x.d, y.d)}; }
inline F16 max_bits(F16 x, F16 y) {
  return each(x, y, [](float32x4_t a, float32x4_t b) { return as_float(vmaxq_u32(as_int(a), as_int(b))); });
}
inline F16 sqrt(F16 x) { return each(x, vsqrtq_f32); }
inline F16 neg(F16 x) { return each(x, vnegq_f32); }
inline F16 abs(F16 x) { return each(x, vabsq_f32); }
inline F16 copy_sign(F16 magnitude, F16 sign) {
  return each(sign, magnitude, [](float32x4_t s, float32x4_t m) { return vbslq_f32(vdupq_n_u32(0x80000000U), s, m); });
}

inline M16 lt(F16 x, F16 y) { return compare(x, y, vcltq_f32); }
inline M16 gt(F16 x, F16 y) { return compare(x, y, vcgtq_f32); }
inline M16 eq(F16 x, F16 y) { return compare(x, y, vceqq_f32); }
inline M16 is_nan(F16 x) {
  return compare(x, x, [](float32x4_t v, float32x4_t) { return vmvnq_u32(vceqq_f32(v, v)); });
}
inline M16 first(int n) {
  constexpr int32_t kOrder[4] = {0, 1, 2, 3};
  const int32x4_t order = vld1q_s32(kOrder);
  const auto before = [&](int start) { return vcltq_s32(order, vdupq_n_s32(n - start)); };
  return {before(0), before(4), before(8), before(12)};
}
inline F16 select(M16 m, F16 yes, F16 no) {
  return {vbslq_f32(m.a, yes.a, no.a), vbslq_f32(m.b, yes.b, no.b), vbslq_f32(m.c, yes.c, no.c),
          vbslq_f32(m.d, yes.d, no.d)};
}
inline uint32_t to_bits(M16 m) {
  constexpr uint32_t kBits[4] = {1, 2, 4, 8};
  const uint32x4_t bits = vld1q_u32(kBits);
  const auto of = [&](uint32x4_t v) { return vaddvq_u32(vandq_u32(v, bits)); };
  return of(m.a) | of(m.b) << 4 | of(m.c) << 8 | of(m.d) << 12;
}

inline F16 load(const float* p) { return {vld1q_f32(p), vld1q_f32(p + 4), vld1q_f32(p + 8), vld1q_f32(p + 12)}; }
inline F16 load(const Bf16* p) {
  const auto* words = reinterpret_cast<const uint16_t*>(p);
  const uint16x8_t none = vdupq_n_u16(0), low = vld1q_u16(words), high = vld1q_u16(words + 8);
  return {from_words(vzip1q_u16(none, low)), from_words(vzip2q_u16(none, low)), from_words(vzip1q_u16(none, high)),
          from_words(vzip2q_u16(none, high))};
}
inline F16 load(const Half* p) {
  const auto* words = reinterpret_cast<const uint16_t*>(p);
  const auto four = [&](int i) { return vcvt_f32_f16(vreinterpret_f16_u16(vld1_u16(words + i))); };
  return {four(0), four(4), four(8), four(12)};
}
inline F16 load(const int8_t* p) {
  const int8x16_t raw = vld1q_s8(p);
  const int16x8_t low = vmovl_s8(vget_low_s8(raw)), high = vmovl_s8(vget_high_s8(raw));
  const auto four = [](int16x4_t words) { return vcvtq_f32_s32(vmovl_s16(words)); };
  return {four(vget_low_s16(low)), four(vget_high_s16(low)), four(vget_low_s16(high)), four(vget_high_s16(high))};
}
// NEON has no masked moves; a copy on the stack stands in for them.
template <typename T>
inline F16 load_n(const T* p, int n) {
  T whole[16] = {};
  std::memcpy(whole, p, static_cast<size_t>(n) * sizeof(T));
  return load(whole);
}

inline uint32x4_t rounded_to_bf16(float32x4_t x) {  // in the high half of each 32-bit word; the low one is undefined
  const uint32x4_t u = as_int(x), odd = vandq_u32(vshrq_n_u32(u, 16), vdupq_n_u32(1));
  const uint32x4_t rounded = vaddq_u32(u, vaddq_u32(odd, vdupq_n_u32(0x7fff)));
  return vbslq_u32(vceqq_f32(x, x), rounded, vorrq_u32(u, vdupq_n_u32(0x400000)));
}
inline uint16x8_t join_high(uint32x4_t x, uint32x4_t y) {
  return vuzp2q_u16(vreinterpretq_u16_u32(x), vreinterpretq_u16_u32(y));
}

inline void store(float* p, F16 x) {
  vst1q_f32(p, x.a);
  vst1q_f32(p + 4, x.b);
  vst1q_f32(p + 8, x.c);
  vst1q_f32(p + 12, x.d);
}
inline void store(Bf16* p, F16 x) {
  auto* words = reinterpret_cast<uint16_t*>(p);
  vst1q_u16(words, join_high(rounded_to_bf16(x.a), rounded_to_bf16(x.b)));
  vst1q_u16(words + 8, join_high(rounded_to_bf16(x.c), rounded_to_bf16(x.d)));
}
inline void store(Half* p, F16 x) {
  auto* words = reinterpret_cast<uint16_t*>(p);
  const auto four = [&](int i, float32x4_t v) { vst1_u16(words + i, vreinterpret_u16_f16(vcvt_f16_f32(v))); };
  four(0, x.a);
  four(4, x.b);
  four(8, x.c);
  four(12, x.d);
}
inline void store(int8_t* p, F16 x) {  // rounded, of -128 to 127
  const auto words = [](float32x4_t low, float32x4_t high) {
    return vcombine_s16(vmovn_s32(vcvtnq_s32_f32(low)), vmovn_s32(vcvtnq_s32_f32(high)));
  };
  vst1q_s8(p, vcombine_s8(vmovn_s16(words(x.a, x.b)), vmovn_s16(words(x.c, x.d))));
}
template <typename T>
inline void store_n(T* p, F16 x, int n) {
  T whole[16];
  store(whole, x);
  std::memcpy(p, whole, static_cast<size_t>(n) * sizeof(T));
}

inline float horizontal_sum(F16 x) {
  const float32x4_t four = vaddq_f32(vaddq_f32(x.a, x.c), vaddq_f32(x.b, x.d));
  const float32x2_t two = vadd_f32(vget_low_f32(four), vget_high_f32(four));
  return vget_lane_f32(two, 0) + vget_lane_f32(two, 1);
}
inline float horizontal_max(F16 x) {
  const float32x4_t four = max(max(x.a, x.c), max(x.b, x.d));
  const float32x2_t two = max(vget_low_f32(four), vget_high_f32(four));
  return vget_lane_f32(max(two, vrev64_f32(two)), 0);
}

inline F16 add_to_exponent(F16 x, F16 t) {
  return each(x, t,
              [](float32x4_t v, float32x4_t n) { return as_float(vaddq_u32(as_int(v), vshlq_n_u32(as_int(n), 23))); });
}
inline F16 split_exponent(F16 x, F16& mantissa) {
  const auto exponent = [](float32x4_t v) {
    return vshrq_n_s32(vreinterpretq_s32_u32(vsubq_u32(as_int(v), vdupq_n_u32(0x3f3504f3U))), 23);
  };
  mantissa = each(x, [&](float32x4_t v) {
    return as_float(vsubq_u32(as_int(v), vreinterpretq_u32_s32(vshlq_n_s32(exponent(v), 23))));
  });
  return each(x, [&](float32x4_t v) { return vcvtq_f32_s32(exponent(v)); });
}
inline M16 has_bit(F16 x, uint32_t bit) {
  const uint32x4_t one = vdupq_n_u32(bit);
  return compare(x, x, [&](float32x4_t v, float32x4_t) { return vtstq_u32(as_int(v), one); });
}

inline F16 low_bf16(F16 pairs) {
  return each(pairs, [](float32x4_t v) { return as_float(vshlq_n_u32(as_int(v), 16)); });
}
inline float32x4_t high_bf16(float32x4_t pairs) { return as_float(vandq_u32(as_int(pairs), vdupq_n_u32(0xffff0000U))); }
inline F16 high_bf16(F16 pairs) {
  return each(pairs, [](float32x4_t v) { return high_bf16(v); });
}
inline F16 rounded_to_bf16(F16 x) {
  return each(x, [](float32x4_t v) { return high_bf16(as_float(rounded_to_bf16(v))); });
}

inline void interleave(F16 low, F16 high, F16& left, F16& right) {
  const auto first = [](float32x4_t x, float32x4_t y) { return from_words(vzip1q_u16(as_words(x), as_words(y))); };
  const auto second = [](float32x4_t x, float32x4_t y) { return from_words(vzip2q_u16(as_words(x), as_words(y))); };
  left = {first(low.a, high.a), second(low.a, high.a), first(low.b, high.b), second(low.b, high.b)};
  right = {first(low.c, high.c), second(low.c, high.c), first(low.d, high.d), second(low.d, high.d)};
}
inline F16 join_bf16(F16 x, F16 y) {
  const auto join = [](float32x4_t v, float32x4_t w) { return from_words(join_high(as_int(v), as_int(w))); };
  return {join(x.a, x.b), join(x.c, x.d), join(y.a, y.b), join(y.c, y.d)};
}
inline F16 pair_bf16(F16 x, F16 y) {
  const auto pair = [](float32x4_t low, float32x4_t high) {
    return as_float(vsriq_n_u32(as_int(high), as_int(low), 16));
  };
  return {pair(x.a, y.a), pair(x.b, y.b), pair(x.c, y.c), pair(x.d, y.d)};
}
inline F16 chain_order(F16 words) {
  constexpr uint8_t kOrder[16] = {4, 5, 0, 1, 6, 7, 2, 3, 12, 13, 8, 9, 14, 15, 10, 11};
  const uint8x16_t order = vld1q_u8(kOrder);
  return each(words, [&](float32x4_t v) { return vreinterpretq_f32_u8(vqtbl1q_u8(vreinterpretq_u8_f32(v), order)); });
}

inline void transpose4(float32x4_t& x, float32x4_t& y, float32x4_t& z, float32x4_t& w) {
  const auto wide = [](float32x4_t v) { return vreinterpretq_f64_f32(v); };
  const auto narrow = [](float64x2_t v) { return vreinterpretq_f32_f64(v); };
  const float32x4_t xy = vtrn1q_f32(x, y), yx = vtrn2q_f32(x, y), zw = vtrn1q_f32(z, w), wz = vtrn2q_f32(z, w);
  x = narrow(vtrn1q_f64(wide(xy), wide(zw)));
  y = narrow(vtrn1q_f64(wide(yx), wide(wz)));
  z = narrow(vtrn2q_f64(wide(xy), wide(zw)));
  w = narrow(vtrn2q_f64(wide(yx), wide(wz)));
}
inline void transpose(F16 (&r)[16]) {
  constexpr float32x4_t F16::* kQuarters[4] = {&F16::a, &F16::b, &F16::c, &F16::d};
  for (int i = 0; i < 4; ++i) {
    for (int j = 0; j < 4; ++j) {
      const auto q = kQuarters[j];
      transpose4(r[4 * i].*q, r[4 * i + 1].*q, r[4 * i + 2].*q, r[4 * i + 3].*q);
    }
  }
  for (int i = 0; i < 4; ++i) {
    for (int j = 0; j < i; ++j) {
      for (int k = 0; k < 4; ++k) std::swap(r[4 * i + k].*kQuarters[j], r[4 * j + k].*kQuarters[i]);
    }
  }
}

}  // namespace atb_core::cpu::ATB_CPU_LEVEL

#include "cpu/kernels/vec_exponent-inl.h"
