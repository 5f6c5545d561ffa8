// SPDX-License-Identifier: Apache-2.0
#include "cpu/kernels/quant_blocks.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>

namespace atb_core::cpu {
namespace {

uint8_t byte_at(const std::byte* p, int i) { return static_cast<uint8_t>(p[i]); }
uint16_t half_at(const std::byte* p, int i) {
  uint16_t value;
  std::memcpy(&value, p + i, sizeof value);
  return value;
}

// Eight elements at a time: bytes of a word, the first one lowest.
static_assert(std::endian::native == std::endian::little);
constexpr uint64_t kOnes = 0x0101010101010101U;
uint64_t word_at(const void* p, int i) {
  uint64_t value;
  std::memcpy(&value, static_cast<const std::byte*>(p) + i, sizeof value);
  return value;
}
void put_word(uint8_t* q, uint64_t value) { std::memcpy(q, &value, sizeof value); }

// `count` bytes of two halves: the first `count` elements are low, as many after them high.
void read_nibbles(const std::byte* p, int count, uint8_t* q) {
  for (int i = 0; i < count; i += 8) {
    const uint64_t word = word_at(p, i);
    put_word(q + i, word & 15 * kOnes);
    put_word(q + count + i, word >> 4 & 15 * kOnes);
  }
}

void read_fifth_bits(const std::byte* p, uint8_t* q) {
  for (int i = 0; i < 4; ++i) {
    // Byte j keeps bit j; what is added makes 0x80 of it.
    const uint64_t bits = byte_at(p, i) * kOnes & 0x8040201008040201U;
    put_word(q + i * 8, word_at(q, i * 8) | ((bits + 0x00406070787c7e7fU) >> 3 & 16 * kOnes));
  }
}

constexpr int8_t kNonLinear[16] = {-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113};

// A block of 32 elements, group `g` of the step.
void read_small(QuantFormat format, const std::byte* p, int g, QuantStep& out) {
  uint8_t* q = out.q + g * 32;
  out.half_scale[g] = half_at(p, 0);
  switch (format) {
    case QuantFormat::q4_0:
      return read_nibbles(p + 2, 16, q);
    case QuantFormat::q4_1:
      out.half_min[g] = half_at(p, 2);
      return read_nibbles(p + 4, 16, q);
    case QuantFormat::q5_0:
      read_nibbles(p + 6, 16, q);
      return read_fifth_bits(p + 2, q);
    case QuantFormat::q5_1:
      out.half_min[g] = half_at(p, 2);
      read_nibbles(p + 8, 16, q);
      return read_fifth_bits(p + 4, q);
    case QuantFormat::iq4_nl:
      read_nibbles(p + 2, 16, q);
      for (int i = 0; i < 32; ++i) q[i] = static_cast<uint8_t>(kNonLinear[q[i]] + 128);
      return;
    case QuantFormat::q8_0:
      for (int i = 0; i < 32; i += 8) put_word(q + i, word_at(p, 2 + i) ^ 0x80 * kOnes);
      return;
    // Without a default, so that a compiler names the format that is missing here.
    case QuantFormat::none:
    case QuantFormat::int8:
    case QuantFormat::int4:
    case QuantFormat::q3_k:
    case QuantFormat::q4_k:
    case QuantFormat::q5_k:
    case QuantFormat::q6_k:
      return;
  }
}

// Twelve bytes of eight scales and eight minima of 6 bits.
void read_super_scales(const std::byte* p, QuantStep& out) {
  for (int i = 0; i < 4; ++i) {
    const uint8_t a = byte_at(p, i), b = byte_at(p, 4 + i), c = byte_at(p, 8 + i);
    out.scale[i] = a & 63;
    out.min[i] = b & 63;
    out.scale[4 + i] = static_cast<uint8_t>((c & 15) | a >> 6 << 4);
    out.min[4 + i] = static_cast<uint8_t>(c >> 4 | b >> 6 << 4);
  }
}

// 32 bytes hold a group of low and a group of high halves.
void read_super_nibbles(const std::byte* p, uint8_t* q) {
  for (int i = 0; i < 4; ++i) read_nibbles(p + i * 32, 32, q + i * 64);
}

void read_q4_k(const std::byte* p, QuantStep& out) {
  out.half_scale[0] = half_at(p, 0);
  out.half_min[0] = half_at(p, 2);
  read_super_scales(p + 4, out);
  read_super_nibbles(p + 16, out.q);
}

void read_q5_k(const std::byte* p, QuantStep& out) {
  out.half_scale[0] = half_at(p, 0);
  out.half_min[0] = half_at(p, 2);
  read_super_scales(p + 4, out);
  read_super_nibbles(p + 48, out.q);
  for (int i = 0; i < 256; i += 8) {
    const uint64_t fifth = word_at(p, 16 + i % 32) >> i / 32 & kOnes;
    put_word(out.q + i, word_at(out.q, i) | fifth << 4);
  }
}

// Two halves of 128 elements: 64 bytes of low and 32 bytes of high bits each.
void read_q6_k(const std::byte* p, QuantStep& out) {
  out.half_scale[0] = half_at(p, 208);
  for (int i = 0; i < 16; ++i) out.scale[i] = byte_at(p, 192 + i);
  for (int half = 0; half < 2; ++half) read_nibbles(p + half * 64, 64, out.q + half * 128);
  for (int i = 0; i < 256; i += 8) {
    const uint64_t high = word_at(p, 128 + i / 128 * 32 + i % 32) >> i % 128 / 32 * 2 & 3 * kOnes;
    put_word(out.q + i, word_at(out.q, i) | high << 4);
  }
}

// 32 bytes of third bits, 64 of two bits, sixteen scales of 6 bits from -32 on in 12 bytes.
void read_q3_k(const std::byte* p, QuantStep& out) {
  out.half_scale[0] = half_at(p, 108);
  for (int i = 0; i < 16; ++i) {
    const uint8_t low = byte_at(p + 96, i % 8), high = byte_at(p + 96, 8 + i % 4);
    const int scale = (i < 8 ? low & 15 : low >> 4) | (high >> 2 * (i / 4) & 3) << 4;
    out.scale[i] = static_cast<uint8_t>(scale - 32);
  }
  for (int i = 0; i < 256; i += 8) {
    const uint64_t low = word_at(p, 32 + i / 128 * 32 + i % 32) >> i % 128 / 32 * 2 & 3 * kOnes;
    put_word(out.q + i, low | (word_at(p, i % 32) >> i / 32 & kOnes) << 2);
  }
}

}  // namespace

float half_to_float(uint16_t half) {
  const uint32_t sign = uint32_t{half & 0x8000U} << 16, exponent = half >> 10 & 31U, mantissa = half & 1023U;
  if (exponent == 31) return std::bit_cast<float>(sign | 0x7f800000U | mantissa << 13);
  const float magnitude = exponent == 0 ? static_cast<float>(mantissa) * 0x1p-24F
                                        : std::bit_cast<float>((exponent + 112) << 23 | mantissa << 13);
  return std::bit_cast<float>(std::bit_cast<uint32_t>(magnitude) | sign);
}

uint16_t float_to_half(float value) {
  const uint32_t bits = std::bit_cast<uint32_t>(value), magnitude = bits & 0x7fffffffU;
  const auto sign = static_cast<uint16_t>(bits >> 16 & 0x8000U);
  if (magnitude > 0x7f800000U) return static_cast<uint16_t>(sign | 0x7e00U);
  if (magnitude >= 0x477ff000U) return static_cast<uint16_t>(sign | 0x7c00U);  // 65520 and more
  if (magnitude < 0x38800000U) {                                               // below 2^-14: units of 2^-24
    return static_cast<uint16_t>(sign |
                                 static_cast<uint16_t>(std::nearbyint(std::bit_cast<float>(magnitude) * 0x1p24F)));
  }
  const uint32_t rounded = magnitude + 0xfff + (magnitude >> 13 & 1);
  return static_cast<uint16_t>(sign | (rounded - (112U << 23)) >> 13);
}

void read_blocks(QuantFormat format, const std::byte* row, int64_t first, int64_t k, QuantStep& out) {
  const QuantLayout layout = quant_layout(format);
  const std::byte* p = row + first / layout.block * layout.block_bytes;
  switch (format) {
    case QuantFormat::q3_k:
      return read_q3_k(p, out);
    case QuantFormat::q4_k:
      return read_q4_k(p, out);
    case QuantFormat::q5_k:
      return read_q5_k(p, out);
    case QuantFormat::q6_k:
      return read_q6_k(p, out);
    case QuantFormat::q4_0:
    case QuantFormat::q4_1:
    case QuantFormat::q5_0:
    case QuantFormat::q5_1:
    case QuantFormat::q8_0:
    case QuantFormat::iq4_nl:
      for (int g = 0; g < 2 && first + g * 32 < k; ++g) read_small(format, p + g * layout.block_bytes, g, out);
      return;
    case QuantFormat::none:
    case QuantFormat::int8:
    case QuantFormat::int4:
      return;  // made of floats
  }
}

bool quantize_groups(const float (&x)[64], int64_t count, QuantStep& out) {
  for (int g = 0; g < 2; ++g) {
    const float* group = x + g * 32;
    const auto size = std::clamp<int64_t>(count - g * 32, 0, 32);
    if (size == 0) break;
    float low = group[0], high = group[0];
    for (int i = 0; i < size; ++i) {
      if (!(std::fabs(group[i]) <= 3.0e38F)) return false;
      low = std::min(low, group[i]);
      high = std::max(high, group[i]);
    }
    out.half_min[g] = float_to_half(low);
    out.half_scale[g] = float_to_half((high - low) / 15);
    const float m = half_to_float(out.half_min[g]), s = half_to_float(out.half_scale[g]);
    if (!std::isfinite(m) || !std::isfinite(s)) return false;
    for (int i = 0; i < size; ++i) {
      const float q = s == 0 ? 0 : std::nearbyint((group[i] - m) / s);
      out.q[g * 32 + i] = static_cast<uint8_t>(std::clamp(q, 0.0F, 15.0F));
    }
  }
  return true;
}

}  // namespace atb_core::cpu
