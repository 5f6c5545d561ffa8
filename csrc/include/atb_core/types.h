// SPDX-License-Identifier: Apache-2.0
// Types that all of the C++ code shares: element types and views of contiguous memory.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>

namespace atb_core {

enum class DataType : uint8_t { f32, f16, bf16, i8, i32, i64, b8 };

inline constexpr int kMaxRank = 8;

// The alignment of all memory that the engine allocates: one cache line, one AVX-512 register, one AMX tile row.
inline constexpr size_t kAlignment = 64;

constexpr size_t itemsize(DataType t) {
  switch (t) {
    case DataType::f32:
    case DataType::i32:
      return 4;
    case DataType::f16:
    case DataType::bf16:
      return 2;
    case DataType::i64:
      return 8;
    case DataType::i8:
    case DataType::b8:
      return 1;
  }
  return 0;
}

constexpr bool is_float(DataType t) { return t == DataType::f32 || t == DataType::f16 || t == DataType::bf16; }

// Returns the short name that Python uses: "float32", "float16", "bfloat16", "int8", "int32", "int64", "bool".
constexpr std::string_view name(DataType t) {
  switch (t) {
    case DataType::f32:
      return "float32";
    case DataType::f16:
      return "float16";
    case DataType::bf16:
      return "bfloat16";
    case DataType::i8:
      return "int8";
    case DataType::i32:
      return "int32";
    case DataType::i64:
      return "int64";
    case DataType::b8:
      return "bool";
  }
  return "?";
}

constexpr size_t align_up(size_t bytes, size_t alignment = kAlignment) {
  return (bytes + alignment - 1) / alignment * alignment;
}

// A view of a contiguous row-major tensor. It owns nothing. Rank 0 is a scalar (one element).
struct TensorView {
  void* data = nullptr;
  DataType dtype = DataType::f32;
  int rank = 0;
  int64_t shape[kMaxRank] = {};
  bool on_device = false;      // in a model's step: `data` is an address of a device, which the host must not read
  const void* host = nullptr;  // the same values on the host, if the caller passed them

  int64_t dim(int axis) const { return shape[axis < 0 ? axis + rank : axis]; }
  // Returns the number of elements in the dimensions [begin, end).
  int64_t count(int begin, int end) const {
    int64_t n = 1;
    for (int i = begin; i < end; ++i) n *= shape[i];
    return n;
  }
  int64_t numel() const { return count(0, rank); }
  size_t bytes() const { return static_cast<size_t>(numel()) * itemsize(dtype); }
  template <typename T>
  T* as() const {
    return static_cast<T*>(data);
  }
};

}  // namespace atb_core
