// SPDX-License-Identifier: Apache-2.0
// bfmlalb and bfmlalt are, per lane, fused multiply-adds of the low and of the high halves of words: a link of the even and
// one of the odd chain, from natural pairs as they are in memory. They round and flush denormals as fmla does; bfdot and
// bfmmla do not. 3 rows x 1 block x 2 chains = 24 sums, 4 weights, 3 activations.
#define ATB_CPU_LEVEL neon_bf16
#include "cpu/kernels/vec_neon.h"
// The vector type comes first.
#include "cpu/kernels/linear_three_rows-inl.h"

namespace atb_core::cpu {
namespace neon_bf16 {
namespace {

struct LongProducts {
  struct Weight {
    bfloat16x8_t a, b, c, d;
  };
  template <int Chain>
  struct Value {
    bfloat16x8_t pair;
  };
  static constexpr size_t kItemBytes = 2;
  static constexpr int kWords = 16;
  static constexpr size_t kRowBytes = 64;
  static constexpr int kLinkBytes = 32;

  template <int>
  static Weight weight(const std::byte* w, int j) {
    const auto* p = reinterpret_cast<const bfloat16_t*>(w + j * 64);
    return {vld1q_bf16(p), vld1q_bf16(p + 8), vld1q_bf16(p + 16), vld1q_bf16(p + 24)};
  }
  template <int Chain>
  static Value<Chain> value(const std::byte* x, int j) {
    return {vreinterpretq_bf16_u32(vld1q_dup_u32(reinterpret_cast<const uint32_t*>(x) + j))};
  }
  static F16 mac(F16 sum, Weight w, Value<0> x) {
    return {vbfmlalbq_f32(sum.a, w.a, x.pair), vbfmlalbq_f32(sum.b, w.b, x.pair), vbfmlalbq_f32(sum.c, w.c, x.pair),
            vbfmlalbq_f32(sum.d, w.d, x.pair)};
  }
  static F16 mac(F16 sum, Weight w, Value<1> x) {
    return {vbfmlaltq_f32(sum.a, w.a, x.pair), vbfmlaltq_f32(sum.b, w.b, x.pair), vbfmlaltq_f32(sum.c, w.c, x.pair),
            vbfmlaltq_f32(sum.d, w.d, x.pair)};
  }
  static void prepare_step(const std::byte* src, std::byte* dst) { std::memcpy(dst, src, kRowBytes); }
};

}  // namespace
}  // namespace neon_bf16

const LinearKernel* linear_kernel_neon_bf16(DataType dtype) {
  return dtype == DataType::bf16 ? &neon_bf16::kKernel<neon_bf16::LongProducts> : nullptr;
}

}  // namespace atb_core::cpu
