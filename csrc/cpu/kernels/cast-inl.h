// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstring>
#include <limits>
#include <type_traits>

namespace atb_core::cpu::ATB_CPU_LEVEL {

struct Bool8 {
  uint8_t value;
};

template <typename T>
inline constexpr bool kIsFloat = std::is_same_v<T, float> || std::is_same_v<T, Half> || std::is_same_v<T, Bf16>;

template <typename To>
inline To float_to_integer(float x) {
  constexpr float kLimit = -static_cast<float>(std::numeric_limits<To>::min());  // a power of two, exact
  if (x != x) return 0;
  if (x >= kLimit) return std::numeric_limits<To>::max();
  if (x < -kLimit) return std::numeric_limits<To>::min();
  return static_cast<To>(x);
}

template <typename From>
inline auto value_of(From x) {
  if constexpr (std::is_same_v<From, Bool8>) {
    return static_cast<int32_t>(x.value != 0);
  } else {
    return x;
  }
}

// From a number (float or integer) to an integer type or Bool8.
template <typename To, typename Number>
inline To to_integer(Number x) {
  if constexpr (std::is_same_v<To, Bool8>) {
    return {static_cast<uint8_t>(x != Number{0})};
  } else if constexpr (std::is_same_v<Number, float>) {
    return float_to_integer<To>(x);
  } else {
    return static_cast<To>(x);
  }
}

template <typename From, typename To>
inline void cast_range(const From* from, To* to, int64_t n) {
  if constexpr (std::is_same_v<From, To>) {
    if (n > 0) std::memcpy(to, from, static_cast<size_t>(n) * sizeof(To));  // null pointers have no elements
  } else if constexpr (kIsFloat<From> && kIsFloat<To>) {
    for (int64_t i = 0; i < n; i += 16) store_up_to_16(to + i, load_up_to_16(from + i, n - i), n - i);
  } else if constexpr (kIsFloat<From>) {
    for (int64_t i = 0; i < n; i += 16) {
      float lanes[16];
      store(lanes, load_up_to_16(from + i, n - i));
      for (int64_t j = 0; j < std::min<int64_t>(16, n - i); ++j) to[i + j] = to_integer<To>(lanes[j]);
    }
  } else if constexpr (kIsFloat<To>) {
    for (int64_t i = 0; i < n; i += 16) {
      float lanes[16] = {};
      for (int64_t j = 0; j < std::min<int64_t>(16, n - i); ++j) lanes[j] = static_cast<float>(value_of(from[i + j]));
      store_up_to_16(to + i, load(lanes), n - i);
    }
  } else {
    for (int64_t i = 0; i < n; ++i) to[i] = to_integer<To>(value_of(from[i]));
  }
}

// Calls f(T{}) with the element type of any dtype.
template <typename F>
inline void with_any_type(DataType dtype, F f) {
  switch (dtype) {
    case DataType::f32:
      return f(float{});
    case DataType::f16:
      return f(Half{});
    case DataType::bf16:
      return f(Bf16{});
    case DataType::i8:
      return f(int8_t{});
    case DataType::i32:
      return f(int32_t{});
    case DataType::i64:
      return f(int64_t{});
    case DataType::b8:
      return f(Bool8{});
  }
}

inline void cast(const CastArgs& args, const Worker& worker) {
  const auto [begin, end] = worker.share(args.x.numel(), kGrain);
  const int64_t at = begin, n = end - begin;
  with_any_type(args.x.dtype, [&](auto from) {
    with_any_type(args.out.dtype,
                  [&](auto to) { cast_range(args.x.as<decltype(from)>() + at, args.out.as<decltype(to)>() + at, n); });
  });
}

}  // namespace atb_core::cpu::ATB_CPU_LEVEL
