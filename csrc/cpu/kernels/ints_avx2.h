// SPDX-License-Identifier: Apache-2.0
// I16: sixteen 32-bit integers, here two AVX2 registers. See ints_portable.h for the meaning.
#pragma once

#include <immintrin.h>

#include <cstddef>
#include <cstdint>
#include <cstring>

namespace atb_core::cpu::ATB_CPU_LEVEL {

struct I16 {
  __m256i a, b;
};
struct B64 {
  __m256i a, b;
};

inline B64 load_bytes(const std::byte* p) {
  const auto* q = reinterpret_cast<const __m256i*>(p);
  return {_mm256_loadu_si256(q), _mm256_loadu_si256(q + 1)};
}
inline B64 operator|(B64 x, B64 y) { return {_mm256_or_si256(x.a, y.a), _mm256_or_si256(x.b, y.b)}; }
inline B64 masked(__m256i a, __m256i b, int mask) {
  const __m256i m = _mm256_set1_epi8(static_cast<char>(mask));
  return {_mm256_and_si256(a, m), _mm256_and_si256(b, m)};
}
inline B64 low_nibbles(B64 x) { return masked(x.a, x.b, 15); }
inline B64 high_nibbles(B64 x) { return masked(_mm256_srli_epi16(x.a, 4), _mm256_srli_epi16(x.b, 4), 15); }
template <int Left, int Mask>
inline B64 bit_at_4(B64 x) {
  if constexpr (Left >= 0) {
    return masked(_mm256_slli_epi16(x.a, Left), _mm256_slli_epi16(x.b, Left), Mask);
  } else {
    return masked(_mm256_srli_epi16(x.a, -Left), _mm256_srli_epi16(x.b, -Left), Mask);
  }
}

inline I16 int_set1(int32_t x) { return {_mm256_set1_epi32(x), _mm256_set1_epi32(x)}; }
inline I16 operator*(I16 x, I16 y) { return {_mm256_mullo_epi32(x.a, y.a), _mm256_mullo_epi32(x.b, y.b)}; }
inline I16 operator+(I16 x, I16 y) { return {_mm256_add_epi32(x.a, y.a), _mm256_add_epi32(x.b, y.b)}; }
inline I16 load_ints(const void* p) {
  const auto* q = static_cast<const __m256i*>(p);
  return {_mm256_loadu_si256(q), _mm256_loadu_si256(q + 1)};
}
inline void store_ints(void* p, I16 x) {
  auto* q = static_cast<__m256i*>(p);
  _mm256_storeu_si256(q, x.a);
  _mm256_storeu_si256(q + 1, x.b);
}
inline F16 to_float(I16 x) { return {_mm256_cvtepi32_ps(x.a), _mm256_cvtepi32_ps(x.b)}; }
inline I16 load_u8(const std::byte* p) {
  const __m128i bytes = _mm_loadu_si128(reinterpret_cast<const __m128i*>(p));
  return {_mm256_cvtepu8_epi32(bytes), _mm256_cvtepu8_epi32(_mm_srli_si128(bytes, 8))};
}
inline I16 load_i8(const std::byte* p) {
  const __m128i bytes = _mm_loadu_si128(reinterpret_cast<const __m128i*>(p));
  return {_mm256_cvtepi8_epi32(bytes), _mm256_cvtepi8_epi32(_mm_srli_si128(bytes, 8))};
}

// Even and odd bytes as 16-bit integers: the instruction for bytes saturates.
struct Words {
  __m256i even_a, even_b, odd_a, odd_b;
};
struct Value {
  __m256i even, odd;
};
template <int Bits>
inline constexpr int kWordZero = 0;
template <int Bits>
inline Words words(B64 x) {
  const __m256i low = _mm256_set1_epi16(255);
  return {_mm256_and_si256(x.a, low), _mm256_and_si256(x.b, low), _mm256_srli_epi16(x.a, 8), _mm256_srli_epi16(x.b, 8)};
}
inline Value broadcast(const int8_t* p) {
  int32_t word;
  std::memcpy(&word, p, sizeof word);
  const __m256i x = _mm256_set1_epi32(word);
  return {_mm256_srai_epi16(_mm256_slli_epi16(x, 8), 8), _mm256_srai_epi16(x, 8)};
}
inline I16 dot(I16 sum, const Words& w, const Value& x) {
  const __m256i a = _mm256_add_epi32(_mm256_madd_epi16(w.even_a, x.even), _mm256_madd_epi16(w.odd_a, x.odd));
  const __m256i b = _mm256_add_epi32(_mm256_madd_epi16(w.even_b, x.even), _mm256_madd_epi16(w.odd_b, x.odd));
  return {_mm256_add_epi32(sum.a, a), _mm256_add_epi32(sum.b, b)};
}

}  // namespace atb_core::cpu::ATB_CPU_LEVEL
