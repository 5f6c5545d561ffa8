// SPDX-License-Identifier: Apache-2.0
// F16: sixteen float lanes, here two AVX registers (AVX2, FMA and F16C). See vec_portable.h for the meaning.
#pragma once

#include <immintrin.h>

#include <cstring>

#include "cpu/kernels/vec_types.h"

namespace atb_core::cpu::ATB_CPU_LEVEL {

struct F16 {
  __m256 a, b;
};
struct M16 {
  __m256 a, b;
};

inline __m256i as_int(__m256 v) { return _mm256_castps_si256(v); }
inline __m256 as_float(__m256i v) { return _mm256_castsi256_ps(v); }

inline F16 zero() { return {_mm256_setzero_ps(), _mm256_setzero_ps()}; }
inline F16 set1(float x) { return {_mm256_set1_ps(x), _mm256_set1_ps(x)}; }
inline F16 operator+(F16 x, F16 y) { return {_mm256_add_ps(x.a, y.a), _mm256_add_ps(x.b, y.b)}; }
inline F16 operator-(F16 x, F16 y) { return {_mm256_sub_ps(x.a, y.a), _mm256_sub_ps(x.b, y.b)}; }
inline F16 operator*(F16 x, F16 y) { return {_mm256_mul_ps(x.a, y.a), _mm256_mul_ps(x.b, y.b)}; }
inline F16 operator/(F16 x, F16 y) { return {_mm256_div_ps(x.a, y.a), _mm256_div_ps(x.b, y.b)}; }
inline F16 fma(F16 x, F16 y, F16 z) { return {_mm256_fmadd_ps(x.a, y.a, z.a), _mm256_fmadd_ps(x.b, y.b, z.b)}; }
inline F16 min(F16 x, F16 y) { return {_mm256_min_ps(x.a, y.a), _mm256_min_ps(x.b, y.b)}; }
inline F16 max(F16 x, F16 y) { return {_mm256_max_ps(x.a, y.a), _mm256_max_ps(x.b, y.b)}; }
inline __m256 max_bits(__m256 x, __m256 y) { return as_float(_mm256_max_epi32(as_int(x), as_int(y))); }
inline F16 max_bits(F16 x, F16 y) { return {max_bits(x.a, y.a), max_bits(x.b, y.b)}; }
inline F16 sqrt(F16 x) { return {_mm256_sqrt_ps(x.a), _mm256_sqrt_ps(x.b)}; }
inline F16 neg(F16 x) {
  const __m256 bit = _mm256_set1_ps(-0.0F);
  return {_mm256_xor_ps(x.a, bit), _mm256_xor_ps(x.b, bit)};
}
inline F16 abs(F16 x) {
  const __m256 bit = _mm256_set1_ps(-0.0F);
  return {_mm256_andnot_ps(bit, x.a), _mm256_andnot_ps(bit, x.b)};
}
inline F16 copy_sign(F16 magnitude, F16 sign) {
  const __m256 bit = _mm256_set1_ps(-0.0F);
  const F16 m = abs(magnitude);
  return {_mm256_or_ps(m.a, _mm256_and_ps(bit, sign.a)), _mm256_or_ps(m.b, _mm256_and_ps(bit, sign.b))};
}

inline M16 lt(F16 x, F16 y) { return {_mm256_cmp_ps(x.a, y.a, _CMP_LT_OQ), _mm256_cmp_ps(x.b, y.b, _CMP_LT_OQ)}; }
inline M16 gt(F16 x, F16 y) { return lt(y, x); }
inline M16 eq(F16 x, F16 y) { return {_mm256_cmp_ps(x.a, y.a, _CMP_EQ_OQ), _mm256_cmp_ps(x.b, y.b, _CMP_EQ_OQ)}; }
inline M16 is_nan(F16 x) { return {_mm256_cmp_ps(x.a, x.a, _CMP_UNORD_Q), _mm256_cmp_ps(x.b, x.b, _CMP_UNORD_Q)}; }
inline M16 first(int n) {
  const __m256i count = _mm256_set1_epi32(n);
  const __m256i low = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
  const __m256i high = _mm256_add_epi32(low, _mm256_set1_epi32(8));
  return {as_float(_mm256_cmpgt_epi32(count, low)), as_float(_mm256_cmpgt_epi32(count, high))};
}
inline F16 select(M16 m, F16 yes, F16 no) {
  return {_mm256_blendv_ps(no.a, yes.a, m.a), _mm256_blendv_ps(no.b, yes.b, m.b)};
}
inline uint32_t to_bits(M16 m) {
  return static_cast<uint32_t>(_mm256_movemask_ps(m.a)) | static_cast<uint32_t>(_mm256_movemask_ps(m.b)) << 8;
}

inline F16 load(const float* p) { return {_mm256_loadu_ps(p), _mm256_loadu_ps(p + 8)}; }
inline F16 load(const Bf16* p) {
  const __m256i raw = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p));
  const __m256i low = _mm256_cvtepu16_epi32(_mm256_castsi256_si128(raw));
  const __m256i high = _mm256_cvtepu16_epi32(_mm256_extracti128_si256(raw, 1));
  return {as_float(_mm256_slli_epi32(low, 16)), as_float(_mm256_slli_epi32(high, 16))};
}
inline F16 load(const Half* p) {
  const __m128i* q = reinterpret_cast<const __m128i*>(p);
  return {_mm256_cvtph_ps(_mm_loadu_si128(q)), _mm256_cvtph_ps(_mm_loadu_si128(q + 1))};
}
inline F16 load(const int8_t* p) {
  const __m128i raw = _mm_loadu_si128(reinterpret_cast<const __m128i*>(p));
  return {_mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(raw)),
          _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_srli_si128(raw, 8)))};
}
inline F16 load_n(const float* p, int n) {
  const M16 m = first(n);
  // A masked load does not fault on lanes that are off, but the address of the second half must exist as a value.
  const __m256 high = n > 8 ? _mm256_maskload_ps(p + 8, as_int(m.b)) : _mm256_setzero_ps();
  return {_mm256_maskload_ps(p, as_int(m.a)), high};
}
// AVX2 has no masked 16-bit moves; a copy on the stack stands in for them.
template <typename T>
inline F16 load_n(const T* p, int n) {
  T whole[16] = {};
  std::memcpy(whole, p, static_cast<size_t>(n) * sizeof(T));
  return load(whole);
}

inline __m256i to_bf16_words(__m256 x) {  // the 16 bits in the low half of each 32-bit word
  const __m256i u = as_int(x);
  const __m256i odd = _mm256_and_si256(_mm256_srli_epi32(u, 16), _mm256_set1_epi32(1));
  const __m256i rounded = _mm256_add_epi32(u, _mm256_add_epi32(odd, _mm256_set1_epi32(0x7fff)));
  const __m256i quiet = _mm256_or_si256(u, _mm256_set1_epi32(0x400000));
  const __m256 nan = _mm256_cmp_ps(x, x, _CMP_UNORD_Q);
  return _mm256_srli_epi32(as_int(_mm256_blendv_ps(as_float(rounded), as_float(quiet), nan)), 16);
}

inline void store(float* p, F16 x) {
  _mm256_storeu_ps(p, x.a);
  _mm256_storeu_ps(p + 8, x.b);
}
inline void store(Bf16* p, F16 x) {
  const __m256i packed = _mm256_packus_epi32(to_bf16_words(x.a), to_bf16_words(x.b));
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), _mm256_permute4x64_epi64(packed, 0xd8));
}
inline void store(Half* p, F16 x) {
  __m128i* q = reinterpret_cast<__m128i*>(p);
  _mm_storeu_si128(q, _mm256_cvtps_ph(x.a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
  _mm_storeu_si128(q + 1, _mm256_cvtps_ph(x.b, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
}
inline void store(int8_t* p, F16 x) {  // rounded, of -128 to 127
  const __m256i words = _mm256_packs_epi32(_mm256_cvtps_epi32(x.a), _mm256_cvtps_epi32(x.b));
  const __m256i ordered = _mm256_permute4x64_epi64(words, 0xd8);
  _mm_storeu_si128(reinterpret_cast<__m128i*>(p),
                   _mm_packs_epi16(_mm256_castsi256_si128(ordered), _mm256_extracti128_si256(ordered, 1)));
}
inline void store_n(float* p, F16 x, int n) {
  const M16 m = first(n);
  _mm256_maskstore_ps(p, as_int(m.a), x.a);
  if (n > 8) _mm256_maskstore_ps(p + 8, as_int(m.b), x.b);
}
template <typename T>
inline void store_n(T* p, F16 x, int n) {
  T whole[16];
  store(whole, x);
  std::memcpy(p, whole, static_cast<size_t>(n) * sizeof(T));
}

inline float horizontal_sum(F16 x) {
  const __m256 eight = _mm256_add_ps(x.a, x.b);
  const __m128 four = _mm_add_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
  const __m128 two = _mm_add_ps(four, _mm_movehl_ps(four, four));
  return _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)));
}
inline float horizontal_max(F16 x) {
  const __m256 eight = _mm256_max_ps(x.a, x.b);
  const __m128 four = _mm_max_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
  const __m128 two = _mm_max_ps(four, _mm_movehl_ps(four, four));
  return _mm_cvtss_f32(_mm_max_ss(two, _mm_movehdup_ps(two)));
}

inline __m256 add_to_exponent(__m256 x, __m256 t) {
  return as_float(_mm256_add_epi32(as_int(x), _mm256_slli_epi32(as_int(t), 23)));
}
inline F16 add_to_exponent(F16 x, F16 t) { return {add_to_exponent(x.a, t.a), add_to_exponent(x.b, t.b)}; }
inline __m256 split_exponent(__m256 x, __m256& mantissa) {
  const __m256i e = _mm256_srai_epi32(_mm256_sub_epi32(as_int(x), _mm256_set1_epi32(0x3f3504f3)), 23);
  mantissa = as_float(_mm256_sub_epi32(as_int(x), _mm256_slli_epi32(e, 23)));
  return _mm256_cvtepi32_ps(e);
}
inline F16 split_exponent(F16 x, F16& mantissa) {
  return {split_exponent(x.a, mantissa.a), split_exponent(x.b, mantissa.b)};
}
inline M16 has_bit(F16 x, uint32_t bit) {
  const __m256i one = _mm256_set1_epi32(static_cast<int>(bit));
  return {as_float(_mm256_cmpeq_epi32(_mm256_and_si256(as_int(x.a), one), one)),
          as_float(_mm256_cmpeq_epi32(_mm256_and_si256(as_int(x.b), one), one))};
}

inline F16 low_bf16(F16 pairs) {
  return {as_float(_mm256_slli_epi32(as_int(pairs.a), 16)), as_float(_mm256_slli_epi32(as_int(pairs.b), 16))};
}
inline F16 high_bf16(F16 pairs) {
  const __m256 mask = as_float(_mm256_set1_epi32(static_cast<int>(0xffff0000U)));
  return {_mm256_and_ps(pairs.a, mask), _mm256_and_ps(pairs.b, mask)};
}

inline F16 rounded_to_bf16(F16 x) {
  return {as_float(_mm256_slli_epi32(to_bf16_words(x.a), 16)), as_float(_mm256_slli_epi32(to_bf16_words(x.b), 16))};
}
// The sixteen words of eight elements of `low` and `high` each, in order.
inline F16 interleave_half(__m256 low, __m256 high) {
  const __m256i first = _mm256_unpacklo_epi16(as_int(low), as_int(high));
  const __m256i second = _mm256_unpackhi_epi16(as_int(low), as_int(high));
  return {as_float(_mm256_permute2x128_si256(first, second, 0x20)),
          as_float(_mm256_permute2x128_si256(first, second, 0x31))};
}
inline void interleave(F16 low, F16 high, F16& left, F16& right) {
  left = interleave_half(low.a, high.a);
  right = interleave_half(low.b, high.b);
}
inline __m256 join_high(F16 x) {
  const __m256i packed = _mm256_packus_epi32(_mm256_srli_epi32(as_int(x.a), 16), _mm256_srli_epi32(as_int(x.b), 16));
  return as_float(_mm256_permute4x64_epi64(packed, 0xd8));
}
inline F16 join_bf16(F16 x, F16 y) { return {join_high(x), join_high(y)}; }
inline F16 pair_bf16(F16 low, F16 high) {
  const auto pair = [](__m256 x, __m256 y) {
    return as_float(_mm256_or_si256(_mm256_srli_epi32(as_int(x), 16), as_int(y)));
  };
  return {pair(low.a, high.a), pair(low.b, high.b)};
}
inline F16 chain_order(F16 words) {
  const __m256i order =
      _mm256_broadcastsi128_si256(_mm_setr_epi8(4, 5, 0, 1, 6, 7, 2, 3, 12, 13, 8, 9, 14, 15, 10, 11));
  return {as_float(_mm256_shuffle_epi8(as_int(words.a), order)), as_float(_mm256_shuffle_epi8(as_int(words.b), order))};
}

inline void transpose8(__m256 (&r)[8]) {
  __m256 t[8];
  for (int i = 0; i < 8; i += 2) {
    t[i] = _mm256_unpacklo_ps(r[i], r[i + 1]);
    t[i + 1] = _mm256_unpackhi_ps(r[i], r[i + 1]);
  }
  for (int i = 0; i < 8; i += 4) {
    r[i + 0] = _mm256_shuffle_ps(t[i], t[i + 2], 0x44);
    r[i + 1] = _mm256_shuffle_ps(t[i], t[i + 2], 0xee);
    r[i + 2] = _mm256_shuffle_ps(t[i + 1], t[i + 3], 0x44);
    r[i + 3] = _mm256_shuffle_ps(t[i + 1], t[i + 3], 0xee);
  }
  for (int i = 0; i < 4; ++i) {
    t[i] = _mm256_permute2f128_ps(r[i], r[i + 4], 0x20);
    t[i + 4] = _mm256_permute2f128_ps(r[i], r[i + 4], 0x31);
  }
  for (int i = 0; i < 8; ++i) r[i] = t[i];
}
inline void transpose(F16 (&r)[16]) {  // four 8x8 quarters; the off-diagonal ones change places
  __m256 q[2][2][8];
  for (int i = 0; i < 8; ++i) {
    q[0][0][i] = r[i].a;
    q[0][1][i] = r[i].b;
    q[1][0][i] = r[i + 8].a;
    q[1][1][i] = r[i + 8].b;
  }
  for (auto& half : q)
    for (auto& quarter : half) transpose8(quarter);
  for (int i = 0; i < 8; ++i) {
    r[i] = {q[0][0][i], q[1][0][i]};
    r[i + 8] = {q[0][1][i], q[1][1][i]};
  }
}

}  // namespace atb_core::cpu::ATB_CPU_LEVEL

#include "cpu/kernels/vec_exponent-inl.h"
