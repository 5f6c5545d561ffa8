// SPDX-License-Identifier: Apache-2.0
// Numbers of the simulator: every kernel computes in float32 and rounds once, to nearest even, when it stores.
#pragma once

#include <acl/acl.h>

#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <stdexcept>
#include <string>
#include <vector>

namespace atb::sim {

inline float from_bf16(uint16_t bits) { return std::bit_cast<float>(static_cast<uint32_t>(bits) << 16); }

inline uint16_t to_bf16(float value) {
  const uint32_t bits = std::bit_cast<uint32_t>(value);
  const uint32_t rounded = (bits + 0x7FFFu + ((bits >> 16) & 1u)) >> 16;
  return static_cast<uint16_t>((bits & 0x7FFFFFFFu) > 0x7F800000u ? (bits >> 16) | 0x40u : rounded);
}

// The multiplication moves the exponent's bias and makes subnormals normal; infinity and NaN get their exponent back.
inline float from_f16(uint16_t half) {
  const uint32_t magnitude = static_cast<uint32_t>(half & 0x7FFF) << 13;
  const float scaled = std::bit_cast<float>(magnitude) * 0x1p112f;
  const uint32_t special = magnitude >= 0x0F800000u ? 0x7F800000u : 0u;
  return std::bit_cast<float>(std::bit_cast<uint32_t>(scaled) | special | (static_cast<uint32_t>(half & 0x8000) << 16));
}

inline uint16_t to_f16(float value) {
  const uint32_t bits = std::bit_cast<uint32_t>(value);
  const uint32_t sign = (bits >> 16) & 0x8000u, x = bits & 0x7FFFFFFFu;
  if (x > 0x7F800000u) return static_cast<uint16_t>(sign | 0x7E00u);
  if (x >= 0x477FF000u) return static_cast<uint16_t>(sign | 0x7C00u);  // 65520 and more
  if (x < 0x38800000u) {                                               // subnormal: 0.5 has the spacing 2^-24
    const uint32_t shifted = std::bit_cast<uint32_t>(std::bit_cast<float>(x) + 0.5f);
    return static_cast<uint16_t>(sign | (shifted - 0x3F000000u));
  }
  const uint32_t rounded = x + 0xFFFu + ((x >> 13) & 1u);
  return static_cast<uint16_t>(sign | ((rounded - 0x38000000u) >> 13));
}

// Bytes of one element; 0 for a type that the simulator does not know.
inline size_t size_of(aclDataType dtype) {
  switch (dtype) {
    case ACL_INT8:
    case ACL_UINT8:
    case ACL_BOOL:
      return 1;
    case ACL_FLOAT16:
    case ACL_BF16:
    case ACL_INT16:
    case ACL_UINT16:
      return 2;
    case ACL_FLOAT:
    case ACL_INT32:
    case ACL_UINT32:
      return 4;
    case ACL_INT64:
    case ACL_UINT64:
    case ACL_DOUBLE:
      return 8;
    default:
      return 0;
  }
}

// out[i] = element begin + i, as float32.
inline void load(const std::byte* data, aclDataType dtype, int64_t begin, int64_t count, float* out) {
  const std::byte* from = data + static_cast<size_t>(begin) * size_of(dtype);
  if (dtype == ACL_FLOAT) {
    if (count > 0) std::memcpy(out, from, static_cast<size_t>(count) * sizeof(float));
    return;
  }
  if (dtype != ACL_FLOAT16 && dtype != ACL_BF16) throw std::runtime_error("a kernel read a type that is no float");
  const auto* halves = reinterpret_cast<const uint16_t*>(from);
  if (dtype == ACL_FLOAT16) {
    for (int64_t i = 0; i < count; ++i) out[i] = from_f16(halves[i]);
  } else {
    for (int64_t i = 0; i < count; ++i) out[i] = from_bf16(halves[i]);
  }
}

// Element begin + i = values[i], rounded once.
inline void store(const float* values, aclDataType dtype, int64_t begin, int64_t count, std::byte* data) {
  std::byte* to = data + static_cast<size_t>(begin) * size_of(dtype);
  if (dtype == ACL_FLOAT) {
    if (count > 0) std::memcpy(to, values, static_cast<size_t>(count) * sizeof(float));
    return;
  }
  if (dtype != ACL_FLOAT16 && dtype != ACL_BF16) throw std::runtime_error("a kernel wrote a type that is no float");
  auto* halves = reinterpret_cast<uint16_t*>(to);
  if (dtype == ACL_FLOAT16) {
    for (int64_t i = 0; i < count; ++i) halves[i] = to_f16(values[i]);
  } else {
    for (int64_t i = 0; i < count; ++i) halves[i] = to_bf16(values[i]);
  }
}

// Rounds values to a type, as a kernel does that stores them between two steps.
inline void round_to(aclDataType dtype, std::vector<float>& values) {
  std::vector<std::byte> memory(values.size() * size_of(dtype));
  store(values.data(), dtype, 0, static_cast<int64_t>(values.size()), memory.data());
  load(memory.data(), dtype, 0, static_cast<int64_t>(values.size()), values.data());
}

inline float load_one(const std::byte* data, aclDataType dtype, int64_t index) {
  float value = 0.0f;
  load(data, dtype, index, 1, &value);
  return value;
}

// An element of an integer tensor (indices, slots, lengths).
inline int64_t load_integer(const std::byte* data, aclDataType dtype, int64_t index) {
  const auto at = static_cast<size_t>(index);
  switch (dtype) {
    case ACL_INT32:
      return reinterpret_cast<const int32_t*>(data)[at];
    case ACL_UINT32:
      return reinterpret_cast<const uint32_t*>(data)[at];
    case ACL_INT64:
      return reinterpret_cast<const int64_t*>(data)[at];
    case ACL_INT8:
      return reinterpret_cast<const int8_t*>(data)[at];
    default:
      throw std::runtime_error("a kernel read integers from a tensor that holds none");
  }
}

}  // namespace atb::sim
