// SPDX-License-Identifier: Apache-2.0
// The vector kernels: everything the CPU engine runs except matrix products and data movement.
//
// A kernel is called on every thread with the same arguments and its own Worker. Unless noted, floating tensors
// of one call share one dtype (f32, f16 or bf16), the arithmetic is float32 and the result is rounded once, to
// nearest even. Shapes are the planner's to check; values that come from data (slots, block ids, lengths) are
// checked here before use and go to Worker::error. Outputs may be the inputs themselves (in place) for rms_norm,
// rope, activation (not swiglu), elewise and softmax, but may not overlap them partly.
//
// One set of bits on all levels, for any number of threads, and for a row whatever other rows there are:
// see vec_*.h (operations), math-inl.h (functions) and attention-inl.h (the order of sums).
#pragma once

#include <cstddef>
#include <cstdint>

#include "atb_core/types.h"
#include "cpu/isa.h"
#include "cpu/worker.h"

namespace atb_core::cpu {

// out = x / sqrt(mean(x^2) + epsilon) * weight over the last dimension. weight [h], of x's dtype or f32.
struct RmsNormArgs {
  TensorView x, weight, out;
  float epsilon = 0;
};

// out = (x - mean(x)) / sqrt(var(x) + epsilon) * weight + bias over the last dimension. weight and bias [h], both of x's
// dtype or f32.
struct LayerNormArgs {
  TensorView x, weight, bias, out;
  float epsilon = 0;
};

// sum = a + b, rounded to the dtype; out = rms_norm(sum). rstd (f32, one per row) is written if it has data.
struct AddRmsNormArgs {
  TensorView a, b, weight, out, rstd, sum;
  float epsilon = 0;
};

// q [T, Hq*D], k [T, Hk*D], cos and sin [T, D] (dtype of q, or f32). Each head is cut into rotary_coeff/2 groups
// and turned, y = x*cos + (-x1, x0)*sin, inside each: 2 turns halves, D turns neighbouring pairs.
struct RopeArgs {
  TensorView q, k, cos, sin, q_out, k_out;
  int64_t rotary_coeff = 2;
};

enum class ActivationKind { relu, gelu_tanh, gelu_erf, fast_gelu, swish, log, swiglu, sigmoid };

// swish: x * sigmoid(scale * x). swiglu: the last dimension of x is twice that of out; silu(first) * second.
struct ActivationArgs {
  TensorView x, out;
  ActivationKind kind = ActivationKind::relu;
  float scale = 1;
};

enum class ElewiseKind {
  add,
  sub,
  mul,
  realdiv,
  muls,
  cos,
  sin,
  neg,
  logical_not,
  logical_and,
  logical_or,
  less,
  greater,
  equal,
  tanh
};

// numpy broadcasting of a and b. Comparisons and logical operations write i8 (or b8), 0 or 1.
struct ElewiseArgs {
  TensorView a, b, out;  // b is not looked at for kinds of one operand
  ElewiseKind kind = ElewiseKind::add;
  float var_attr = 0;  // muls: out = a * var_attr
};
constexpr bool is_unary(ElewiseKind kind) {
  using K = ElewiseKind;
  return kind == K::muls || kind == K::cos || kind == K::sin || kind == K::neg || kind == K::logical_not ||
         kind == K::tanh;
}
// Returns true if elewise supports this kind for operands of this dtype (all operands have the same).
bool elewise_supports(ElewiseKind kind, DataType operand);

// Softmax over the dimensions [first_axis, rank), taken together.
struct SoftmaxArgs {
  TensorView x, out;
  int first_axis = 0;
};

enum class ReduceKind { max, min, sum };

// Bit i of `axes` set: dimension i is reduced. out has the dtype of x (floats, i32, i64) and as many elements as
// the dimensions that stay. Maximum and minimum of nothing are -inf and +inf (the type's limits for integers).
struct ReduceArgs {
  TensorView x, out;
  ReduceKind kind = ReduceKind::sum;
  uint32_t axes = 0;
};

// Of each row of x [T, E]: the k largest, descending (ties: lowest index first, NaN is largest), as indices i32 [T, k]
// and exp(x - max) / sum as weights f32 [T, k], where the sum is over the row or, with `normalize`, over the k. rows
// i32 [T, k] gets the numbers of the choices, column by column.
struct TopkSoftmaxArgs {
  TensorView x, weights, indices, rows;
  bool normalize = false;
};
ScratchSize topk_softmax_scratch(const TopkSoftmaxArgs& args);

// out[t] = sum of probs[t, j] * x[places[t*k + j]], a chain of FMAs in ascending j. x [R, h], places i32 [T*k], probs
// [T, k] of any float dtype, out [T, h] of x's. A place outside of x is reported to Worker::error.
struct TokenUnpermuteArgs {
  TensorView x, places, probs, out;
};
ScratchSize token_unpermute_scratch(const TokenUnpermuteArgs& args);

// out = y + bias[s] + (x . a[s]) b[s] for each token with an adapter s = slots[token] >= 0, else y with its bits. The
// columns are those of `parts` linears, sizes[p] each: part p multiplies by the rows [p*R, p*R + rank) of a[s] and the
// first rank rows of its columns of b[s], where rank = ranks[s, first + p]; 0 leaves its columns as they are.
// x [T, k], y and out [T, N], a [S, parts*R, k], b [S, R, N], bias [S, N], slots i32 [T] or [1] for all tokens, ranks
// i32 [S, M]. Indices out of range are reported to Worker::error. `shared` is needed.
struct LoraArgs {
  TensorView y, x, a, b, bias, slots, ranks, out;
  const int64_t* sizes = nullptr;
  int64_t parts = 1;
  int64_t first = 0;
};
ScratchSize lora_scratch(const LoraArgs& args);

// out i8 = clamp(rint(x / scale + offset), -128, 127), NaN becomes 0. scale [1] or [h], of x's dtype or f32; offset i8 of
// as many elements.
struct QuantizeArgs {
  TensorView x, scale, offset, out;
};

// Of each row: scale (f32) = max |x| / 127, out i8 = rint(x / scale). Rows whose largest is less than 2^-100 have the
// scale 0, rows with NaN the scale NaN; these and rows with infinity have zeros.
struct DynamicQuantArgs {
  TensorView x, out, scale;
};

// Any dtype to any other. Float to integer truncates and saturates, NaN gives 0; integer to a smaller integer keeps
// the low bits; anything to b8 is "not zero".
struct CastArgs {
  TensorView x, out;
};

// k [T, KV, Dk], v [T, KV, Dv] -> caches [blocks, block size, KV, D]; slots i32 [T], a negative one is skipped.
// If a slot comes twice the later token stays. Caches of i8 for k and v of floats, [blocks, block size, KV, D + 4], get
// each head of a token as dynamic_quant makes it; the bytes of a block are the rows i8 [block size, KV, D] and then their
// scales f32 [block size, KV]. packed_kv: only paged_attention with packed_kv, of the same level, reads the caches, which
// can_pack().
struct ReshapeAndCacheArgs {
  TensorView k, v, k_cache, v_cache, slots;
  bool packed_kv = false;
};

// Returns true if attention can read a cache of this dtype and shape as its products want it.
bool can_pack(const TensorView& cache);

// Which row of a mask [..., rows, columns] belongs to a query token and a head: the sum of their numbers times these.
struct MaskRows {
  int64_t sequence = 0, head = 0;
  int64_t position = 0;  // of the token in its sequence
  int64_t token = 0;     // of the token among all
};

// q [T, H, D], k [T, KV, D], v [T, KV, Dv] -> out [T, H, Dv]; the T tokens are sequences, one after another, of
// seq_len (i32 [B]) tokens each. causal: a token sees itself and what is before it in its sequence. mask, if it has
// data: [..., >= longest, >= longest] of any float dtype, added to the scaled scores. soft_cap, if positive: a scaled
// score s becomes soft_cap * tanh(s / soft_cap), before the mask is added. int8_kv: k and v, of one D, count as a cache
// of i8 would have them, for which the shared memory is needed.
struct SelfAttentionArgs {
  TensorView q, k, v, mask, seq_len, out;
  int64_t heads = 0, kv_heads = 0;
  float scale = 1;
  bool causal = false;
  float soft_cap = 0;
  MaskRows mask_rows{.position = 1};
  bool int8_kv = false;
};

// q [T, H, D], caches [blocks, block size, KV, D or Dv] -> out [T, H, Dv]; block_tables i32 [B, MB], context_lens
// i32 [B] (with the new tokens). q_lens, if it has data: i32 [B], new tokens of each sequence; otherwise one each.
// New token j of n sees positions <= context_len - n + j. Tokens of a sequence with context_len 0 give zeros.
// mask, if it has data: [..., rows, >= longest context] of any float dtype, added to the scaled scores; soft_cap as
// above. Caches may be of i8, [blocks, block size, KV, D + 4], as reshape_and_cache writes them; packed_kv: as it writes
// them with packed_kv.
struct PagedAttentionArgs {
  TensorView q, k_cache, v_cache, block_tables, context_lens, mask, q_lens, out;
  int64_t heads = 0, kv_heads = 0;
  float scale = 1;
  MaskRows mask_rows{.sequence = 1};
  float soft_cap = 0;
  bool packed_kv = false;
};

// per_thread is needed. Less shared memory than stated (even none) only means that short queries over long contexts
// use fewer threads. Only shapes and dtypes are looked at, so these can be called before there is data.
ScratchSize self_attention_scratch(const SelfAttentionArgs& args, int threads);
ScratchSize paged_attention_scratch(const PagedAttentionArgs& args, int threads);

struct KernelTable {
  void (*rms_norm)(const RmsNormArgs&, const Worker&);
  void (*add_rms_norm)(const AddRmsNormArgs&, const Worker&);
  void (*layer_norm)(const LayerNormArgs&, const Worker&);
  void (*rope)(const RopeArgs&, const Worker&);
  void (*activation)(const ActivationArgs&, const Worker&);
  void (*elewise)(const ElewiseArgs&, const Worker&);
  void (*softmax)(const SoftmaxArgs&, const Worker&);
  void (*reduce)(const ReduceArgs&, const Worker&);
  void (*cast)(const CastArgs&, const Worker&);
  void (*topk_softmax)(const TopkSoftmaxArgs&, const Worker&);
  void (*token_unpermute)(const TokenUnpermuteArgs&, const Worker&);
  void (*lora)(const LoraArgs&, const Worker&);
  void (*quantize)(const QuantizeArgs&, const Worker&);
  void (*dynamic_quant)(const DynamicQuantArgs&, const Worker&);
  void (*reshape_and_cache)(const ReshapeAndCacheArgs&, const Worker&);
  void (*self_attention)(const SelfAttentionArgs&, const Worker&);
  void (*paged_attention)(const PagedAttentionArgs&, const Worker&);
};

// The kernels of a level (which must be supported). Levels above avx512 use the avx512 ones, and amx_emulated those of
// the best level this machine has; the matrix products of attention are the level's own.
const KernelTable& kernel_table(Isa isa);

// One per source file, kernels_<level>.cpp: the kernels compiled for it, with the matrix products of `isa`. Use
// kernel_table.
const KernelTable& portable_kernels(Isa isa);
const KernelTable& neon_kernels(Isa isa);
const KernelTable& avx2_kernels(Isa isa);
const KernelTable& avx512_kernels(Isa isa);

}  // namespace atb_core::cpu
