// SPDX-License-Identifier: Apache-2.0
#include "cpu/kernels/kernels.h"

namespace atb_core::cpu {

bool elewise_supports(ElewiseKind kind, DataType operand) {
  using K = ElewiseKind;
  const bool logical = kind == K::logical_not || kind == K::logical_and || kind == K::logical_or;
  const bool integer = kind == K::add || kind == K::sub || kind == K::mul || kind == K::neg || kind == K::less ||
                       kind == K::greater || kind == K::equal;
  if (is_float(operand)) return !logical;
  if (operand == DataType::i32 || operand == DataType::i64) return integer;
  return logical || kind == K::equal;
}

// Memory for the order of a row, and the k largest as they are and as floats.
ScratchSize topk_softmax_scratch(const TopkSoftmaxArgs& args) {
  const size_t experts = static_cast<size_t>(args.x.dim(1)), k = static_cast<size_t>(args.weights.dim(1));
  return {0, align_up(experts * sizeof(int32_t)) + align_up(k * itemsize(args.x.dtype)) + align_up(k * sizeof(float))};
}

// Memory for the weights of a token.
ScratchSize token_unpermute_scratch(const TokenUnpermuteArgs& args) {
  return {0, align_up(static_cast<size_t>(args.probs.dim(1)) * sizeof(float))};
}

// Memory for the first products of all tokens.
ScratchSize lora_scratch(const LoraArgs& args) {
  return {static_cast<size_t>(args.x.dim(0) * args.a.dim(1)) * sizeof(float), 0};
}

const KernelTable& kernel_table(Isa isa) {
  const Isa compiled = isa == Isa::amx_emulated ? best_isa() : isa;
#if defined(__x86_64__)
  if (compiled >= Isa::avx512) return avx512_kernels(isa);
  if (compiled == Isa::avx2) return avx2_kernels(isa);
#elif defined(__aarch64__)
  if (compiled != Isa::portable) return neon_kernels(isa);
#endif
  return portable_kernels(isa);
}

}  // namespace atb_core::cpu
