// SPDX-License-Identifier: Apache-2.0
// I16: sixteen 32-bit integers, here one AVX-512 register; with VNNI where the file is compiled for it. See
// ints_portable.h for the meaning.
#pragma once

#include <immintrin.h>

#include <cstddef>
#include <cstdint>
#include <cstring>

namespace atb_core::cpu::ATB_CPU_LEVEL {

struct I16 {
  __m512i v;
};
struct B64 {
  __m512i v;
};

inline B64 load_bytes(const std::byte* p) { return {_mm512_loadu_si512(p)}; }
inline void store_bytes(std::byte* p, B64 a) { _mm512_storeu_si512(p, a.v); }
inline B64 minus(B64 a, int b) { return {_mm512_sub_epi8(a.v, _mm512_set1_epi8(static_cast<char>(b)))}; }
inline B64 operator|(B64 a, B64 b) { return {_mm512_or_si512(a.v, b.v)}; }
inline B64 low_nibbles(B64 a) { return {_mm512_and_si512(a.v, _mm512_set1_epi8(15))}; }
inline B64 high_nibbles(B64 a) { return {_mm512_and_si512(_mm512_srli_epi16(a.v, 4), _mm512_set1_epi8(15))}; }
template <int Left, int Mask>
inline B64 bit_at_4(B64 a) {
  const __m512i moved =
      Left >= 0 ? _mm512_slli_epi16(a.v, Left >= 0 ? Left : 0) : _mm512_srli_epi16(a.v, Left < 0 ? -Left : 0);
  return {_mm512_and_si512(moved, _mm512_set1_epi8(Mask))};
}

inline I16 int_set1(int32_t x) { return {_mm512_set1_epi32(x)}; }
inline I16 operator*(I16 a, I16 b) { return {_mm512_mullo_epi32(a.v, b.v)}; }
inline I16 operator+(I16 a, I16 b) { return {_mm512_add_epi32(a.v, b.v)}; }
inline I16 load_ints(const void* p) { return {_mm512_loadu_si512(p)}; }
inline void store_ints(void* p, I16 a) { _mm512_storeu_si512(p, a.v); }
inline F16 to_float(I16 a) { return {_mm512_cvtepi32_ps(a.v)}; }
inline I16 load_u8(const std::byte* p) {
  return {_mm512_cvtepu8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)))};
}
inline I16 load_i8(const std::byte* p) {
  return {_mm512_cvtepi8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)))};
}

inline __m512i broadcast_word(const int8_t* p) {
  int32_t word;
  std::memcpy(&word, p, sizeof word);
  return _mm512_set1_epi32(word);
}

template <int Bits>
inline constexpr int kWordZero = 0;
#if defined(__AVX512VNNI__)
using Words = B64;
using Value = __m512i;
template <int Bits>
inline Words words(B64 a) {
  return a;
}
inline Value broadcast(const int8_t* p) { return broadcast_word(p); }
inline I16 dot(I16 sum, const Words& w, const Value& x) { return {_mm512_dpbusd_epi32(sum.v, w.v, x)}; }
#else
// Even and odd bytes as 16-bit integers: the instruction for bytes saturates.
struct Words {
  __m512i even, odd;
};
using Value = Words;
template <int Bits>
inline Words words(B64 a) {
  return {_mm512_and_si512(a.v, _mm512_set1_epi16(255)), _mm512_srli_epi16(a.v, 8)};
}
inline Value broadcast(const int8_t* p) {
  const __m512i x = broadcast_word(p);
  return {_mm512_srai_epi16(_mm512_slli_epi16(x, 8), 8), _mm512_srai_epi16(x, 8)};
}
inline I16 dot(I16 sum, const Words& w, const Value& x) {
  const __m512i pairs = _mm512_add_epi32(_mm512_madd_epi16(w.even, x.even), _mm512_madd_epi16(w.odd, x.odd));
  return {_mm512_add_epi32(sum.v, pairs)};
}
#endif

}  // namespace atb_core::cpu::ATB_CPU_LEVEL
