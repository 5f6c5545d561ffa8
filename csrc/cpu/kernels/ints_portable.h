// SPDX-License-Identifier: Apache-2.0
// I16: sixteen 32-bit integers, and B64: 64 bytes, in plain C++. This is the definition of the operations; the other
// ints_*.h have the same ones.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>

namespace atb_core::cpu::ATB_CPU_LEVEL {

struct I16 {
  int32_t v[16];
};
struct B64 {
  uint8_t v[64];
};

inline B64 load_bytes(const std::byte* p) {
  B64 r;
  std::memcpy(r.v, p, sizeof r.v);
  return r;
}
template <typename Op>
inline B64 each_byte(Op op) {
  B64 r;
  for (int i = 0; i < 64; ++i) r.v[i] = static_cast<uint8_t>(op(i));
  return r;
}
template <typename Op>
inline I16 each_int(Op op) {
  I16 r;
  for (int i = 0; i < 16; ++i) r.v[i] = op(i);
  return r;
}

inline void store_bytes(std::byte* p, const B64& a) { std::memcpy(p, a.v, sizeof a.v); }
// Modulo 2^8.
inline B64 minus(const B64& a, int b) {
  return each_byte([&](int i) { return a.v[i] - b; });
}
inline B64 operator|(const B64& a, const B64& b) {
  return each_byte([&](int i) { return a.v[i] | b.v[i]; });
}
inline B64 low_nibbles(const B64& a) {
  return each_byte([&](int i) { return a.v[i] & 15; });
}
inline B64 high_nibbles(const B64& a) {
  return each_byte([&](int i) { return a.v[i] >> 4; });
}
// Each byte moved left by so many bits (right, if negative), without the bits outside of the mask.
template <int Left, int Mask>
inline B64 bit_at_4(const B64& a) {
  return each_byte(
      [&](int i) { return (Left >= 0 ? a.v[i] << (Left >= 0 ? Left : 0) : a.v[i] >> (Left < 0 ? -Left : 0)) & Mask; });
}

inline I16 int_set1(int32_t x) {
  return each_int([&](int) { return x; });
}
inline I16 operator*(const I16& a, const I16& b) {
  return each_int([&](int i) { return a.v[i] * b.v[i]; });
}
// Modulo 2^32.
inline I16 operator+(const I16& a, const I16& b) {
  return each_int(
      [&](int i) { return static_cast<int32_t>(static_cast<uint32_t>(a.v[i]) + static_cast<uint32_t>(b.v[i])); });
}
inline I16 load_ints(const void* p) {
  I16 r;
  std::memcpy(r.v, p, sizeof r.v);
  return r;
}
inline void store_ints(void* p, const I16& a) { std::memcpy(p, a.v, sizeof a.v); }
inline F16 to_float(const I16& a) {
  return each([&](int i) { return static_cast<float>(a.v[i]); });
}
inline I16 load_u8(const std::byte* p) {
  return each_int([&](int i) { return static_cast<int32_t>(static_cast<uint8_t>(p[i])); });
}
inline I16 load_i8(const std::byte* p) {
  return each_int([&](int i) { return static_cast<int32_t>(static_cast<int8_t>(p[i])); });
}

// Sums with the products of 16 times 4 unsigned bytes and 4 signed ones.
using Words = B64;
struct Value {
  int32_t v[4];
};
// What words() of bytes with so many bits in use are less than those bytes: instructions may want signed ones.
template <int Bits>
inline constexpr int kWordZero = 0;
template <int Bits>
inline Words words(const B64& a) {
  return a;
}
inline Value broadcast(const int8_t* p) { return {{p[0], p[1], p[2], p[3]}}; }
inline I16 dot(const I16& sum, const Words& w, const Value& x) {
  return each_int([&](int i) {
    const uint8_t* b = w.v + i * 4;
    return sum.v[i] + b[0] * x.v[0] + b[1] * x.v[1] + b[2] * x.v[2] + b[3] * x.v[3];
  });
}

}  // namespace atb_core::cpu::ATB_CPU_LEVEL
