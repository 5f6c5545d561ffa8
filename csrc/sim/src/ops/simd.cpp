// SPDX-License-Identifier: Apache-2.0
#include "ops/simd.h"

#include <cstring>

#if defined(__x86_64__)
#define ATB_SIM_AVX2 1
#endif

namespace atb::sim {
namespace {

constexpr int64_t kLanes = 8;
// A vector of the compiler: eight lanes are two registers without AVX, with the same sums.
typedef float Lanes __attribute__((vector_size(kLanes * sizeof(float))));

#define ATB_SIM_INLINE __attribute__((always_inline)) inline

ATB_SIM_INLINE void read(Lanes& lanes, const float* from) { std::memcpy(&lanes, from, sizeof(lanes)); }

ATB_SIM_INLINE float sum(const Lanes& v) { return ((v[0] + v[4]) + (v[2] + v[6])) + ((v[1] + v[5]) + (v[3] + v[7])); }

template <int kRows>
ATB_SIM_INLINE void dot_block(const float* a, const float* b, int64_t n, int64_t stride, float* out) {
  Lanes total[kRows] = {};
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) {
    Lanes x;
    read(x, a + i);
    for (int r = 0; r < kRows; ++r) {
      Lanes y;
      read(y, b + r * stride + i);
      total[r] += x * y;
    }
  }
  for (int r = 0; r < kRows; ++r) {
    float rest = 0.0f;
    for (int64_t k = i; k < n; ++k) rest += a[k] * b[r * stride + k];
    out[r] = sum(total[r]) + rest;
  }
}

ATB_SIM_INLINE void dot_all(const float* a, const float* b, int64_t n, int64_t stride, int64_t rows, float* out) {
  int64_t r = 0;
  for (; r + 4 <= rows; r += 4) dot_block<4>(a, b + r * stride, n, stride, out + r);
  for (; r < rows; ++r) dot_block<1>(a, b + r * stride, n, stride, out + r);
}

#ifdef ATB_SIM_AVX2
// Without FMA on purpose: wider registers then give the very same sums.
__attribute__((target("avx2"))) void dot_all_avx2(const float* a, const float* b, int64_t n, int64_t stride,
                                                  int64_t rows, float* out) {
  dot_all(a, b, n, stride, rows, out);
}
#endif

}  // namespace

void dot_rows(const float* a, const float* b, int64_t n, int64_t stride, int64_t rows, float* out) {
#ifdef ATB_SIM_AVX2
  static const bool wide = __builtin_cpu_supports("avx2");
  if (wide) return dot_all_avx2(a, b, n, stride, rows, out);
#endif
  dot_all(a, b, n, stride, rows, out);
}

void add_scaled(float factor, const float* x, int64_t n, float* out) {
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) {
    Lanes from, to;
    read(from, x + i);
    read(to, out + i);
    to += factor * from;
    std::memcpy(out + i, &to, sizeof(to));
  }
  for (; i < n; ++i) out[i] += factor * x[i];
}

}  // namespace atb::sim
