// SPDX-License-Identifier: Apache-2.0
#define ATB_CPU_LEVEL avx512_bf16
#include "cpu/kernels/vec_avx512.h"
// The vector type comes first.
#include "cpu/kernels/linear_avx512-inl.h"

namespace atb_core::cpu {
namespace avx512_bf16 {
namespace {

// vdpbf16ps is, per lane, sum = fma(w.high, x.high, sum), then sum = fma(w.low, x.low, sum), both with
// denormals flushed. A word holds two successive links of one chain, the earlier one in its high half.
struct Dot {
  using Weight = __m512bh;
  static constexpr size_t kItemBytes = 2;
  static constexpr int kWords = 8;
  static constexpr size_t kRowBytes = 64;
  static constexpr int kLinkBytes = 64;

  template <int Chain>
  static Weight weight(const std::byte* w, int j) {
    return reinterpret_cast<Weight>(_mm512_loadu_si512(w + (2 * j + Chain) * kLinkBytes));
  }
  template <int Chain>
  static __m512bh value(const std::byte* x, int j) {
    return reinterpret_cast<__m512bh>(_mm512_set1_epi32(reinterpret_cast<const int32_t*>(x)[2 * j + Chain]));
  }
  static F16 mac(F16 sum, Weight weight, __m512bh value) { return {_mm512_dpbf16_ps(sum.v, weight, value)}; }

  // Eight elements (16 bytes) become the words (x2 x0) (x3 x1) (x6 x4) (x7 x5), here with the low half first.
  static void prepare_step(const std::byte* src, std::byte* dst) {
    const __m512i order = _mm512_broadcast_i32x4(_mm_setr_epi8(4, 5, 0, 1, 6, 7, 2, 3, 12, 13, 8, 9, 14, 15, 10, 11));
    _mm512_storeu_si512(dst, _mm512_shuffle_epi8(_mm512_loadu_si512(src), order));
  }
};

}  // namespace
}  // namespace avx512_bf16

const LinearKernel* linear_kernel_avx512_bf16(DataType dtype) {
  return dtype == DataType::bf16 ? &avx512_bf16::kKernel<avx512_bf16::Dot> : nullptr;
}

}  // namespace atb_core::cpu
