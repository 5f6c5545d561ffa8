// SPDX-License-Identifier: Apache-2.0
// Activations to integers of 8 bits: with given scales, or with one of each row.
#pragma once

#include <cstring>
#include <limits>

namespace atb_core::cpu::ATB_CPU_LEVEL {

inline void store_int8_up_to_16(int8_t* p, F16 x, int64_t n) {
  if (n >= 16) return store_int8(p, x);
  int8_t whole[16];
  store_int8(whole, x);
  std::memcpy(p, whole, static_cast<size_t>(n));
}

inline void quantize(const QuantizeArgs& args, const Worker& worker) {
  const int64_t n = args.x.dim(-1);
  const bool each = args.scale.numel() != 1;
  const int8_t* offset = args.offset.as<int8_t>();
  with_norm_types(args.x, args.scale, worker, [&](auto tag, auto scale_tag) {
    using T = decltype(tag);
    using S = decltype(scale_tag);
    const S* scale = args.scale.as<S>();
    const auto [begin, end] = worker.share(args.x.count(0, args.x.rank - 1));
    for (int64_t row = begin; row < end; ++row) {
      const T* x = args.x.as<T>() + row * n;
      int8_t* out = args.out.as<int8_t>() + row * n;
      for (int64_t i = 0; i < n; i += 16) {
        const int64_t rest = n - i < 16 ? n - i : 16;
        float offsets[16];
        const F16 s = each ? load_up_to_16(scale + i, rest) : broadcast(scale);
        for (int64_t j = 0; j < 16; ++j) offsets[j] = j < rest ? static_cast<float>(offset[each ? i + j : 0]) : 0;
        store_int8_up_to_16(out + i, load_up_to_16(x + i, rest) / s + load(offsets), rest);
      }
    }
  });
}

// Quotients of many finite numbers by one, all of moderate size, as the division rounds them. Two vectors of quotients keep
// a core's divider busy for 20 cycles, and these multiplications take 5. The first product is wrong by less than two units
// in the last place; the first correction leaves less than one, and from there the second one is the rounded quotient,
// because the inverse is rounded correctly (Markstein's theorem).
class Divisor {
 public:
  explicit Divisor(float by) : by_(set1(by)), minus_(set1(-by)), inverse_(set1(1 / by)) {}
  F16 operator()(F16 x) const {
#if defined(FP_FAST_FMAF)
    const F16 near = x * inverse_, nearer = fma(fma(near, minus_, x), inverse_, near);
    return fma(fma(nearer, minus_, x), inverse_, nearer);
#else
    return x / by_;
#endif
  }

 private:
  F16 by_, minus_, inverse_;
};

// Rounds a row of n elements and returns its scale.
template <typename T>
inline float quantize_row(const T* x, int64_t n, int8_t* out) {
  Largest magnitudes;
  for (int64_t i = 0; i < n; i += 16) magnitudes.add(load_up_to_16(x + i, n - i));
  const float largest = magnitudes.get();
  const float scale = largest < 0x1p-100F ? 0 : largest / 127;
  if (!(scale > 0 && scale <= std::numeric_limits<float>::max())) {
    if (n > 0) std::memset(out, 0, static_cast<size_t>(n));
    return scale;
  }
  const auto round_all = [&](auto quotient) {  // of which no magnitude is rounded to more than 127
    int64_t i = 0;
    for (; i + 16 <= n; i += 16) store(out + i, quotient(load(x + i)));
    if (i < n) store_int8_up_to_16(out + i, quotient(load_n(x + i, static_cast<int>(n - i))), n - i);
  };
  if (scale > 0x1p-60F && scale < 0x1p60F) {  // what is left of a division is no denormal number
    round_all(Divisor(scale));
  } else {
    round_all([s = set1(scale)](F16 v) { return v / s; });
  }
  return scale;
}

inline void dynamic_quant(const DynamicQuantArgs& args, const Worker& worker) {
  const int64_t n = args.x.dim(-1);
  with_float_type(args.x.dtype, worker, [&](auto tag) {
    using T = decltype(tag);
    const auto [begin, end] = worker.share(args.x.count(0, args.x.rank - 1));
    for (int64_t row = begin; row < end; ++row)
      args.scale.as<float>()[row] = quantize_row(args.x.as<T>() + row * n, n, args.out.as<int8_t>() + row * n);
  });
}

}  // namespace atb_core::cpu::ATB_CPU_LEVEL
