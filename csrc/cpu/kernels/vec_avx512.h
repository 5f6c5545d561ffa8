// SPDX-License-Identifier: Apache-2.0
// F16: sixteen float lanes, here one AVX-512 register. See vec_portable.h for what each operation means.
#pragma once

// GCC's own header (seen with 12) leaves the unused operand of masked operations uninitialised and warns about it.
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#pragma GCC diagnostic ignored "-Wuninitialized"
#endif
#include <immintrin.h>
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic pop
#endif

#include "cpu/kernels/vec_types.h"

namespace atb_core::cpu::ATB_CPU_LEVEL {

struct F16 {
  __m512 v;
};
struct M16 {
  __mmask16 bits;
};

inline __m512i as_int(F16 a) { return _mm512_castps_si512(a.v); }
inline F16 as_float(__m512i a) { return {_mm512_castsi512_ps(a)}; }

inline F16 zero() { return {_mm512_setzero_ps()}; }
inline F16 set1(float x) { return {_mm512_set1_ps(x)}; }
inline F16 operator+(F16 a, F16 b) { return {_mm512_add_ps(a.v, b.v)}; }
inline F16 operator-(F16 a, F16 b) { return {_mm512_sub_ps(a.v, b.v)}; }
inline F16 operator*(F16 a, F16 b) { return {_mm512_mul_ps(a.v, b.v)}; }
inline F16 operator/(F16 a, F16 b) { return {_mm512_div_ps(a.v, b.v)}; }
inline F16 fma(F16 a, F16 b, F16 c) { return {_mm512_fmadd_ps(a.v, b.v, c.v)}; }
inline F16 min(F16 a, F16 b) { return {_mm512_min_ps(a.v, b.v)}; }
inline F16 max(F16 a, F16 b) { return {_mm512_max_ps(a.v, b.v)}; }
inline F16 max_bits(F16 a, F16 b) { return as_float(_mm512_max_epi32(as_int(a), as_int(b))); }
inline F16 sqrt(F16 a) { return {_mm512_sqrt_ps(a.v)}; }
inline F16 neg(F16 a) { return {_mm512_xor_ps(a.v, _mm512_set1_ps(-0.0F))}; }
inline F16 abs(F16 a) { return {_mm512_andnot_ps(_mm512_set1_ps(-0.0F), a.v)}; }
inline F16 copy_sign(F16 magnitude, F16 sign) {
  const __m512 bit = _mm512_set1_ps(-0.0F);
  return {_mm512_or_ps(_mm512_andnot_ps(bit, magnitude.v), _mm512_and_ps(bit, sign.v))};
}

inline M16 lt(F16 a, F16 b) { return {_mm512_cmp_ps_mask(a.v, b.v, _CMP_LT_OQ)}; }
inline M16 gt(F16 a, F16 b) { return lt(b, a); }
inline M16 eq(F16 a, F16 b) { return {_mm512_cmp_ps_mask(a.v, b.v, _CMP_EQ_OQ)}; }
inline M16 is_nan(F16 a) { return {_mm512_cmp_ps_mask(a.v, a.v, _CMP_UNORD_Q)}; }
inline M16 first(int n) { return {static_cast<__mmask16>(n >= 16 ? 0xffffU : (1U << n) - 1)}; }
inline F16 select(M16 m, F16 yes, F16 no) { return {_mm512_mask_blend_ps(m.bits, no.v, yes.v)}; }
inline uint32_t to_bits(M16 m) { return m.bits; }

inline F16 load(const float* p) { return {_mm512_loadu_ps(p)}; }
inline F16 load(const Bf16* p) {
  const __m256i raw = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p));
  return as_float(_mm512_slli_epi32(_mm512_cvtepu16_epi32(raw), 16));
}
inline F16 load(const Half* p) { return {_mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)))}; }
inline F16 load(const int8_t* p) {
  return {_mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p))))};
}
inline F16 load_n(const int8_t* p, int n) {
  return {_mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_maskz_loadu_epi8(first(n).bits, p)))};
}
inline F16 load_n(const float* p, int n) { return {_mm512_maskz_loadu_ps(first(n).bits, p)}; }
inline F16 load_n(const Bf16* p, int n) {
  const __m256i raw = _mm256_maskz_loadu_epi16(first(n).bits, p);
  return as_float(_mm512_slli_epi32(_mm512_cvtepu16_epi32(raw), 16));
}
inline F16 load_n(const Half* p, int n) { return {_mm512_cvtph_ps(_mm256_maskz_loadu_epi16(first(n).bits, p))}; }

inline __m512i to_bf16_words(F16 a) {  // the 16 bits in the high half of each 32-bit word
  const __m512i u = as_int(a);
  const __m512i odd = _mm512_and_si512(_mm512_srli_epi32(u, 16), _mm512_set1_epi32(1));
  const __m512i rounded = _mm512_add_epi32(u, _mm512_add_epi32(odd, _mm512_set1_epi32(0x7fff)));
  const __m512i quiet = _mm512_or_si512(u, _mm512_set1_epi32(0x400000));
  return _mm512_mask_blend_epi32(is_nan(a).bits, rounded, quiet);
}
#if defined(__AVX512BF16__)
// The instruction drops denormal inputs whatever the mode. What is compiled for it, products, rounds only results of
// arithmetic, none of which is denormal while the engine's threads run.
inline __m256i to_bf16(F16 a) { return reinterpret_cast<__m256i>(_mm512_cvtneps_pbh(a.v)); }
#else
inline __m256i to_bf16(F16 a) { return _mm512_cvtepi32_epi16(_mm512_srli_epi32(to_bf16_words(a), 16)); }
#endif
inline __m256i to_half(F16 a) { return _mm512_cvtps_ph(a.v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC); }

inline void store(float* p, F16 a) { _mm512_storeu_ps(p, a.v); }
inline void store(Bf16* p, F16 a) { _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), to_bf16(a)); }
inline void store(Half* p, F16 a) { _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), to_half(a)); }
inline void store_n(float* p, F16 a, int n) { _mm512_mask_storeu_ps(p, first(n).bits, a.v); }
inline void store_n(Bf16* p, F16 a, int n) { _mm256_mask_storeu_epi16(p, first(n).bits, to_bf16(a)); }
inline void store_n(Half* p, F16 a, int n) { _mm256_mask_storeu_epi16(p, first(n).bits, to_half(a)); }

inline void store(int8_t* p, F16 a) {  // rounded, of -128 to 127
  _mm_storeu_si128(reinterpret_cast<__m128i*>(p), _mm512_cvtepi32_epi8(_mm512_cvtps_epi32(a.v)));
}

inline float horizontal_sum(F16 a) {
  const __m256 eight = _mm256_add_ps(_mm512_castps512_ps256(a.v), _mm512_extractf32x8_ps(a.v, 1));
  const __m128 four = _mm_add_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
  const __m128 two = _mm_add_ps(four, _mm_movehl_ps(four, four));
  return _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)));
}
inline float horizontal_max(F16 a) {
  const __m256 eight = _mm256_max_ps(_mm512_castps512_ps256(a.v), _mm512_extractf32x8_ps(a.v, 1));
  const __m128 four = _mm_max_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
  const __m128 two = _mm_max_ps(four, _mm_movehl_ps(four, four));
  return _mm_cvtss_f32(_mm_max_ss(two, _mm_movehdup_ps(two)));
}

inline F16 add_to_exponent(F16 a, F16 t) {
  return as_float(_mm512_add_epi32(as_int(a), _mm512_slli_epi32(as_int(t), 23)));
}
inline F16 nearest_exponent(F16 x, F16& rest) {
  rest = {_mm512_reduce_ps(x.v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC)};
  return x - rest;
}
inline F16 times_exp2(F16 a, F16 exponent) { return {_mm512_scalef_ps(a.v, exponent.v)}; }
inline F16 split_exponent(F16 x, F16& mantissa) {
  const __m512i e = _mm512_srai_epi32(_mm512_sub_epi32(as_int(x), _mm512_set1_epi32(0x3f3504f3)), 23);
  mantissa = as_float(_mm512_sub_epi32(as_int(x), _mm512_slli_epi32(e, 23)));
  return {_mm512_cvtepi32_ps(e)};
}
inline M16 has_bit(F16 a, uint32_t bit) {
  return {_mm512_test_epi32_mask(as_int(a), _mm512_set1_epi32(static_cast<int>(bit)))};
}

inline F16 low_bf16(F16 pairs) { return as_float(_mm512_slli_epi32(as_int(pairs), 16)); }
inline F16 high_bf16(F16 pairs) {
  return as_float(_mm512_and_si512(as_int(pairs), _mm512_set1_epi32(static_cast<int>(0xffff0000U))));
}

inline F16 rounded_to_bf16(F16 a) {
#if defined(__AVX512BF16__)
  return as_float(_mm512_slli_epi32(_mm512_cvtepu16_epi32(to_bf16(a)), 16));
#else
  return as_float(_mm512_and_si512(to_bf16_words(a), _mm512_set1_epi32(static_cast<int>(0xffff0000U))));
#endif
}
// The indices begin, begin + 1, ... and in the odd elements those of another operand of _mm512_permutex2var_epi16.
inline __m512i interleaving(int begin) {
  const __m512i lane = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
  const __m512i low = _mm512_add_epi32(lane, _mm512_set1_epi32(begin));
  return _mm512_or_si512(low, _mm512_slli_epi32(_mm512_add_epi32(low, _mm512_set1_epi32(32)), 16));
}
inline void interleave(F16 low, F16 high, F16& left, F16& right) {
  left = as_float(_mm512_permutex2var_epi16(as_int(low), interleaving(0), as_int(high)));
  right = as_float(_mm512_permutex2var_epi16(as_int(low), interleaving(16), as_int(high)));
}
inline F16 join_bf16(F16 a, F16 b) {
  const __m512i lane = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
  // Element 2i of the result is the high half of word 2i, that is element 4i + 1.
  const __m512i even = _mm512_add_epi32(_mm512_slli_epi32(lane, 2), _mm512_set1_epi32(1));
  const __m512i odd = _mm512_slli_epi32(_mm512_add_epi32(even, _mm512_set1_epi32(2)), 16);
  return as_float(_mm512_permutex2var_epi16(as_int(a), _mm512_or_si512(even, odd), as_int(b)));
}
inline F16 pair_bf16(F16 low, F16 high) {
  return as_float(_mm512_or_si512(_mm512_srli_epi32(as_int(low), 16), as_int(high)));
}
inline F16 chain_order(F16 words) {
  const __m512i order = _mm512_broadcast_i32x4(_mm_setr_epi8(4, 5, 0, 1, 6, 7, 2, 3, 12, 13, 8, 9, 14, 15, 10, 11));
  return as_float(_mm512_shuffle_epi8(as_int(words), order));
}

inline void transpose(F16 (&r)[16]) {
  __m512 t[16];
  for (int i = 0; i < 16; i += 2) {  // pairs of rows, within 128-bit lanes
    t[i] = _mm512_unpacklo_ps(r[i].v, r[i + 1].v);
    t[i + 1] = _mm512_unpackhi_ps(r[i].v, r[i + 1].v);
  }
  for (int i = 0; i < 16; i += 4) {  // groups of four rows: r[i+j] holds columns j, j+4, j+8, j+12
    r[i + 0].v = _mm512_shuffle_ps(t[i], t[i + 2], 0x44);
    r[i + 1].v = _mm512_shuffle_ps(t[i], t[i + 2], 0xee);
    r[i + 2].v = _mm512_shuffle_ps(t[i + 1], t[i + 3], 0x44);
    r[i + 3].v = _mm512_shuffle_ps(t[i + 1], t[i + 3], 0xee);
  }
  for (int j = 0; j < 4; ++j) {  // whole lanes between the groups
    const __m512 a = _mm512_shuffle_f32x4(r[j].v, r[j + 4].v, 0x88);
    const __m512 b = _mm512_shuffle_f32x4(r[j].v, r[j + 4].v, 0xdd);
    const __m512 c = _mm512_shuffle_f32x4(r[j + 8].v, r[j + 12].v, 0x88);
    const __m512 d = _mm512_shuffle_f32x4(r[j + 8].v, r[j + 12].v, 0xdd);
    t[j] = _mm512_shuffle_f32x4(a, c, 0x88);
    t[j + 8] = _mm512_shuffle_f32x4(a, c, 0xdd);
    t[j + 4] = _mm512_shuffle_f32x4(b, d, 0x88);
    t[j + 12] = _mm512_shuffle_f32x4(b, d, 0xdd);
  }
  for (int i = 0; i < 16; ++i) r[i].v = t[i];
}

}  // namespace atb_core::cpu::ATB_CPU_LEVEL
