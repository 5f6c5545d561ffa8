// SPDX-License-Identifier: Apache-2.0
#include "cpu/kernels/sort.h"

#include <algorithm>
#include <cstring>
#include <numeric>

namespace atb_core::cpu {
namespace {

// A number in the order of the floating-point values whose bits are given; the type has `mantissa` fraction bits.
template <typename Bits>
int64_t float_key(Bits bits, int mantissa) {
  constexpr int kSign = 8 * sizeof(Bits) - 1;
  const int64_t magnitude = bits & ((Bits{1} << kSign) - 1);
  const int64_t infinity = ((int64_t{1} << (kSign - mantissa)) - 1) << mantissa;
  if (magnitude > infinity) return INT64_MAX;
  return (bits >> kSign) & 1 ? -magnitude : magnitude;
}

struct F32Key {
  using Type = uint32_t;
  static int64_t of(Type bits) { return float_key(bits, 23); }
};
struct F16Key {
  using Type = uint16_t;
  static int64_t of(Type bits) { return float_key(bits, 10); }
};
struct Bf16Key {
  using Type = uint16_t;
  static int64_t of(Type bits) { return float_key(bits, 7); }
};
template <typename T>
struct IntKey {
  using Type = T;
  static int64_t of(Type value) { return value; }
};

template <typename Fn>
void with_key(DataType dtype, Fn&& fn) {
  switch (dtype) {
    case DataType::f32:
      return fn(F32Key{});
    case DataType::f16:
      return fn(F16Key{});
    case DataType::bf16:
      return fn(Bf16Key{});
    case DataType::i8:
      return fn(IntKey<int8_t>{});
    case DataType::b8:
      return fn(IntKey<uint8_t>{});
    case DataType::i32:
      return fn(IntKey<int32_t>{});
    case DataType::i64:
      return fn(IntKey<int64_t>{});
  }
}

template <typename Key>
void top_row(const typename Key::Type* x, int64_t size, typename Key::Type* values, int32_t* indices, int64_t count,
             int32_t* order) {
  std::iota(order, order + size, 0);
  std::partial_sort(order, order + count, order + size, [x](int32_t a, int32_t b) {
    const int64_t left = Key::of(x[a]), right = Key::of(x[b]);
    return left != right ? left > right : a < b;
  });
  for (int64_t i = 0; i < count; ++i) {
    indices[i] = order[i];
    values[i] = x[order[i]];
  }
}

}  // namespace

ScratchSize top_scratch(const TopArgs& args) {
  return {.per_thread = static_cast<size_t>(args.x.dim(-1)) * sizeof(int32_t)};
}

void top(const TopArgs& args, const Worker& worker) {
  const int64_t size = args.x.dim(-1), count = args.values.dim(-1);
  const auto [begin, end] = worker.share(args.x.count(0, args.x.rank - 1));
  with_key(args.x.dtype, [&, begin = begin, end = end]<typename Key>(Key) {
    using T = typename Key::Type;
    for (int64_t row = begin; row < end; ++row) {
      top_row<Key>(args.x.as<T>() + row * size, size, args.values.as<T>() + row * count,
                   args.indices.as<int32_t>() + row * count, count, reinterpret_cast<int32_t*>(worker.scratch));
    }
  });
}

void top_of_row(DataType dtype, const void* x, int64_t size, int64_t count, void* values, int32_t* indices,
                int32_t* order) {
  with_key(dtype, [&]<typename Key>(Key) {
    using T = typename Key::Type;
    top_row<Key>(static_cast<const T*>(x), size, static_cast<T*>(values), indices, count, order);
  });
}

void argsort(const ArgsortArgs& args, const Worker& worker) {
  const int64_t size = args.x.dim(-1);
  const auto [begin, end] = worker.share(args.x.count(0, args.x.rank - 1));
  with_key(args.x.dtype, [&, begin = begin, end = end]<typename Key>(Key) {
    for (int64_t row = begin; row < end; ++row) {
      const auto* x = args.x.as<typename Key::Type>() + row * size;
      int32_t* order = args.indices.as<int32_t>() + row * size;
      std::iota(order, order + size, 0);
      std::sort(order, order + size, [x](int32_t a, int32_t b) {
        const int64_t left = Key::of(x[a]), right = Key::of(x[b]);
        return left != right ? left < right : a < b;
      });
    }
  });
}

}  // namespace atb_core::cpu
