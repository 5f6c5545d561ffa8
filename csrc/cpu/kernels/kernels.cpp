// SPDX-License-Identifier: Apache-2.0
#include "cpu/kernels/kernels.h"

#include <algorithm>

#include "cpu/kernels/attention.h"

namespace atb_core::cpu {

namespace {

// The most shared memory for the partial results of split contexts.
constexpr size_t kMaxPartialBytes = size_t{32} << 20;

size_t partial_bytes(int64_t rows, int64_t longest, int64_t dv) {
  const int64_t tiles = (longest + kTile - 1) / kTile;
  return static_cast<size_t>(rows * tiles * partial_size(dv)) * sizeof(float);
}

const KernelTable& best_table() {
  const Isa isa = best_isa();
  return isa == Isa::amx_emulated ? kPortableKernels : kernel_table(isa);
}

}  // namespace

bool elewise_supports(ElewiseKind kind, DataType operand) {
  using K = ElewiseKind;
  const bool logical = kind == K::logical_not || kind == K::logical_and || kind == K::logical_or;
  const bool integer = kind == K::add || kind == K::sub || kind == K::mul || kind == K::neg || kind == K::less ||
                       kind == K::greater || kind == K::equal;
  if (is_float(operand)) return !logical;
  if (operand == DataType::i32 || operand == DataType::i64) return integer;
  return logical || kind == K::equal;
}

AttentionLayout attention_layout(int64_t heads, int64_t kv_heads, int64_t d, int64_t dv) {
  AttentionLayout layout;
  layout.rows = std::max(kItemRows, heads / kv_heads);
  const auto floats = [&](int64_t n) {
    const size_t at = layout.bytes;
    layout.bytes += align_up(static_cast<size_t>(n) * sizeof(float));
    return at;
  };
  layout.query = floats(layout.rows * padded(d));
  layout.output = floats(layout.rows * padded(dv));
  layout.top = floats(layout.rows);
  layout.sum = floats(layout.rows);
  layout.keys = floats(padded(d) * kTile);
  layout.values = floats(kTile * padded(dv));
  layout.scores = floats(16 * kTile);
  layout.visible = floats(layout.rows);  // int32
  layout.mask_row = floats(layout.rows);
  layout.places = floats(4 * kTile);  // int64, of two tiles
  return layout;
}

ScratchSize self_attention_scratch(const SelfAttentionArgs& args, int) {
  return {0, attention_layout(args.heads, args.kv_heads, args.q.dim(-1), args.v.dim(-1)).bytes};
}

ScratchSize paged_attention_scratch(const PagedAttentionArgs& args, int threads) {
  const int64_t dv = args.v_cache.dim(-1);
  ScratchSize size{0, attention_layout(args.heads, args.kv_heads, args.q.dim(-1), dv).bytes};
  // With several times more (sequence, kv head) pairs than threads the contexts are never split.
  const int64_t pairs = args.context_lens.dim(0) * args.kv_heads;
  if (threads > 1 && pairs < 4 * threads) {
    const int64_t longest = args.block_tables.dim(1) * args.k_cache.dim(1);
    size.shared = std::min(partial_bytes(args.q.dim(0) * args.heads, longest, dv), kMaxPartialBytes);
  }
  return size;
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
  switch (isa) {
#if defined(__x86_64__)
    case Isa::avx2:
      return kAvx2Kernels;
    case Isa::avx512:
    case Isa::avx512_bf16:
    case Isa::amx:
      return kAvx512Kernels;
#else
    case Isa::avx2:
    case Isa::avx512:
    case Isa::avx512_bf16:
    case Isa::amx:
#endif
    case Isa::portable:
      return kPortableKernels;
    case Isa::amx_emulated:
      return best_table();
  }
  return kPortableKernels;
}

}  // namespace atb_core::cpu
