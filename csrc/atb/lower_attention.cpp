// SPDX-License-Identifier: Apache-2.0
// Rope, SelfAttention, PagedAttention and ReshapeAndCache.
#include <string_view>

#include "atb/lower_rules.h"

namespace atb_core::ascend {
namespace {

using ::atb::infer::PagedAttentionParam;
using ::atb::infer::SelfAttentionParam;

// Limits of the kernels besides the device's largest head_dim.
constexpr int64_t kHeadStep310p = 16;
constexpr int64_t kSpecHeadSize = 256;
constexpr int64_t kSpecHeads = 256;
constexpr int64_t kSpecQuery = 16384;  // heads times head_dim
// Types of masks.
constexpr std::string_view kNone = "MASK_TYPE_UNDEFINED", kNorm = "MASK_TYPE_NORM", kAlibi = "MASK_TYPE_ALIBI",
                           kSpec = "MASK_TYPE_SPEC", kNormCompress = "MASK_TYPE_NORM_COMPRESS";
constexpr int64_t kTriangle = 128;

bool is_mask(const Lowering& l, std::string_view type) { return l.text("mask_type") == type; }

bool masked(const Lowering& l) {
  const bool known =
      is_mask(l, kNone) || is_mask(l, kNorm) || is_mask(l, kAlibi) || is_mask(l, kSpec) || is_mask(l, kNormCompress);
  l.require(known, "mask_type ", l.text("mask_type"), " is none of this version; give ", kNorm, ", ", kNormCompress,
            ", ", kAlibi, ", ", kSpec, " or ", kNone);
  return !is_mask(l, kNone);
}

bool masked_by_token(const Lowering& l) { return is_mask(l, kSpec); }

void expect_inputs(const Lowering& l, int count) {
  l.require(l.num_inputs() == count, "it has ", l.num_inputs(), " inputs, not ", count);
}

// Its int8 cache has one scale for each channel, which is the same for all tokens.
void refuse_int8(const Lowering& l) {
  l.require(!l.flag("int8_kv"), "ATB has no int8 cache with a scale for each token and head");
}

// Checks q, [tokens, heads, head_dim].
void check_query(const Lowering& l) {
  refuse_int8(l);
  l.require(l.rank(0) == 3, "q has ", l.rank(0), " dimensions, not three");
  require_result_type(l);
  l.require(l.number("logits_soft_cap") == 0, "ATB's attention has no logits_soft_cap");
  const int64_t heads = l.integer("head_num"), kv_heads = l.integer("kv_head_num");
  l.require(heads > 0 && kv_heads > 0 && heads % kv_heads == 0, heads, " heads cannot share ", kv_heads,
            " key/value heads evenly");
  const auto head = l.size(0, 2);
  l.require(head.has_value(), "the head size has to be a number, not a symbol");
  l.require(*head <= l.device().max_head_dim, "heads of ", *head, " are too long; attention takes at most ",
            l.device().max_head_dim);
  l.require(!l.device().nz || *head % kHeadStep310p == 0, "the head size ", *head, " is no multiple of ",
            kHeadStep310p);
}

// Returns both scales in one factor: ATB has no qScale for packed and paged attention before 8.5.
float score_scale(const Lowering& l) { return l.number("q_scale") * l.number("qk_scale"); }

void take_lengths(Lowering& l, int input, const char* what, bool on_host) {
  require_type(l, input, what, DataType::i32);
  if (on_host) l.host_data(input);
}

void take_mask(Lowering& l, int input) {
  require_type(l, input, "the mask", l.input(0).dtype);
  // Of more than two dimensions ATB converts it there.
  if (l.rank(input) == 2) require_nz(l, input, "the mask");
}

// Returns true if the kernel for bfloat16, whose scores are float32, is to run float16, too: the usual one rounds the
// products of long prompts to float16 before it scales them, where large ones become infinite. It cannot add values of a
// mask, and a 310P does not have it.
bool keeps_float_scores(const Lowering& l, bool has_mask, bool causal) {
  return l.input(0).dtype == DataType::f16 && !l.device().nz && (causal || !has_mask);
}

void take_caches(Lowering& l, int keys) {
  for (int cache : {keys, keys + 1}) {
    l.require(l.rank(cache) == 4, "a cache has ", l.rank(cache), " dimensions, not four");
    require_type(l, cache, "a cache", l.input(0).dtype);
    require_nz(l, cache, "a cache");
  }
}

void check_block(const Lowering& l, bool spec) {
  const auto block = l.size(1, 1), v_head = l.size(2, 3);
  const int64_t head = *l.size(0, 2);
  if (!block) return;
  const std::string problem = block_problem(l.device(), {head, v_head.value_or(head), *block, spec});
  l.require(problem.empty(), "the cache has ", problem, ": choose another block size");
}

void check_spec(const Lowering& l, bool has_mask) {
  l.require(
      has_mask,
      "with CALC_TYPE_SPEC ATB needs a mask: give one with MASK_TYPE_SPEC, [tokens, longest context], whose values "
      "are large and negative where a token must not see, or on a 910B with MASK_TYPE_NORM");
  l.require(!l.device().nz || masked_by_token(l), "there CALC_TYPE_SPEC takes a mask of the type MASK_TYPE_SPEC, ",
            "[tokens, longest context]");
  const int64_t heads = l.integer("head_num"), head = *l.size(0, 2);
  l.require(head <= kSpecHeadSize, "heads of ", head, " are too long; CALC_TYPE_SPEC takes at most ", kSpecHeadSize);
  l.require(heads <= kSpecHeads && heads * head <= kSpecQuery, heads, " heads of ", head,
            " are too many for CALC_TYPE_SPEC, which takes ", kSpecHeads, " heads and ", kSpecQuery,
            " elements a token: split the heads over several devices");
}

// Checks the mask of one token of each sequence, [sequences, 1, longest] or [sequences, heads, 1, longest].
void check_decode_mask(const Lowering& l) {
  l.require(is_mask(l, kNorm) || is_mask(l, kAlibi), "one token of each sequence takes ", kNorm, " or ", kAlibi,
            ", not ", l.text("mask_type"));
  l.require(!l.device().nz, "there one token takes no mask: leave it away, or give CALC_TYPE_SPEC and ", kSpec);
  l.require(l.rank(5) == (is_mask(l, kAlibi) ? 4 : 3), "the mask has ", l.rank(5), " dimensions; ", kNorm,
            " is [sequences, 1, longest context] and ", kAlibi, " [sequences, heads, 1, longest context]");
}

// Checks new keys and values; ATB checks a symbolic size.
void check_cached_rows(const Lowering& l) {
  const auto k_heads = l.size(0, 1), v_heads = l.size(1, 1);
  l.require(!k_heads || !v_heads || *k_heads == *v_heads, "k has ", k_heads.value_or(0), " heads and v ",
            v_heads.value_or(0), "; they must have as many");
  if (!l.device().nz) return;
  const auto key = l.size(0, 2), value = l.size(1, 2);
  l.require(!key || !value || *key == *value, "the heads of k have ", key.value_or(0), " elements and those of v ",
            value.value_or(0), "; there they must be equal");
  for (const auto& head : {key, value}) {
    l.require(!head || *head % kHeadStep310p == 0, "the head size ", head.value_or(0), " is no multiple of ",
              kHeadStep310p);
  }
}

}  // namespace

// Inputs: q, k, cos, sin, and lengths, which the kernel requires on the device although it does not use them.
void lower_rope(Lowering& l) {
  const DataType type = l.input(0).dtype;
  for (int input : {0, 1, 2, 3}) {
    l.require(l.rank(input) == 2, "input ", input, " has ", l.rank(input), " dimensions, not two");
  }
  require_type(l, 1, "k", type);
  require_type(l, 3, "sin", l.input(2).dtype);
  const DataType angles = l.input(2).dtype;
  l.require(angles == type || (angles == DataType::f32 && type == DataType::f16), "cos and sin are ", name(angles),
            " and q ", name(type), ": ATB takes the type of q, or float32 beside float16");
  take_lengths(l, 4, "seqlen", false);
  const auto head = l.size(2, 1);
  const int64_t coefficient = l.integer("rotary_coeff");
  l.require(head.has_value(), "the head size has to be a number, not a symbol");
  l.require(*head >= 16 && *head <= 4096, "the head size is ", *head, "; ATB's Rope takes 16 to 4096");
  l.require(coefficient == 2 || coefficient == *head, "rotary_coeff is ", coefficient, ", not 2 or the head size ",
            *head);
  const auto q = l.size(0, 1), k = l.size(1, 1);
  l.require(!q || !k || *q % *k == 0, "q is ", q.value_or(0), " wide, which is no multiple of k's ", k.value_or(0));
  ::atb::infer::RopeParam param{};
  param.rotaryCoeff = static_cast<int32_t>(coefficient);
  param.cosFormat = 0;  // one row of cos for each token
  l.add("Rope", param, {l.in(0), l.in(1), l.in(2), l.in(3), l.in(4)}, {l.out(0), l.out(1)});
}

void lower_self_attention(Lowering& l) {
  const bool has_mask = masked(l), causal = l.flag("is_triu_mask");
  expect_inputs(l, has_mask ? 5 : 4);
  check_query(l);
  l.require(l.text("calc_type") == "PA_ENCODER", "calc_type is ", l.text("calc_type"), ", not PA_ENCODER");
  l.require(!masked_by_token(l), "MASK_TYPE_SPEC has rows for new tokens of a cache; give MASK_TYPE_NORM");
  require_type(l, 1, "k", l.input(0).dtype);
  require_type(l, 2, "v", l.input(0).dtype);
  l.require(!causal || has_mask, "is_triu_mask needs a mask: give a triangle of 128 x 128 with MASK_TYPE_NORM");
  const bool alibi = is_mask(l, kAlibi);
  l.require(!is_mask(l, kNormCompress) || (causal && l.size(3, 0) == kTriangle && l.size(3, 1) == kTriangle),
            kNormCompress, " is a triangle of 128 x 128 with is_triu_mask");
  // There the kernel reads 1 as hidden, while the op's mask has values to add.
  l.require(!has_mask || causal || alibi || l.input(0).dtype != DataType::bf16,
            "in bfloat16 ATB cannot add a mask's values: use is_triu_mask or MASK_TYPE_ALIBI, or run the model in ",
            "float16");
  if (has_mask) take_mask(l, 3);
  for (int input : {1, 2}) {
    l.require(l.rank(input) == 3, "k and v have ", l.rank(input), " dimensions, not three");
  }
  const bool precise = keeps_float_scores(l, has_mask, causal && !alibi);
  if (precise && has_mask) {
    const TensorKind kind = l.input(3).kind;
    l.require(kind == TensorKind::input || kind == TensorKind::weight,
              "in float16 the triangle has to be an input of the network and not be computed in it");
    l.layout(3, Layout::ones);
  }
  take_lengths(l, l.num_inputs() - 1, "seq_len", true);
  l.lengths_of(l.num_inputs() - 1, 0);
  SelfAttentionParam param{};
  param.calcType = SelfAttentionParam::PA_ENCODER;
  param.headNum = static_cast<int32_t>(l.integer("head_num"));
  param.kvHeadNum = static_cast<int32_t>(l.integer("kv_head_num"));
  param.qkScale = score_scale(l);
  if (precise) param.kernelType = SelfAttentionParam::KERNELTYPE_HIGH_PRECISION;
  param.isTriuMask = causal ? 1 : 0;
  param.maskType = !has_mask                   ? SelfAttentionParam::MASK_TYPE_UNDEFINED
                   : alibi                     ? SelfAttentionParam::MASK_TYPE_ALIBI
                   : is_mask(l, kNormCompress) ? SelfAttentionParam::MASK_TYPE_NORM_COMPRESS
                                               : SelfAttentionParam::MASK_TYPE_NORM;
  std::vector<int> inputs;
  for (int i = 0; i < l.num_inputs(); ++i) inputs.push_back(l.in(i));
  l.add("SelfAttention", param, inputs, {l.out(0)});
}

void lower_paged_attention(Lowering& l) {
  const std::string& calc = l.text("calc_type");
  l.require(calc == "CALC_TYPE_UNDEFINED" || calc == "CALC_TYPE_SPEC", "calc_type ", calc, " is none of this version");
  const bool has_mask = masked(l), spec = calc == "CALC_TYPE_SPEC";
  expect_inputs(l, 5 + has_mask + spec);
  check_query(l);
  if (spec) {
    check_spec(l, has_mask);
  } else if (has_mask) {
    check_decode_mask(l);
  }
  take_caches(l, 1);
  check_block(l, spec);
  require_type(l, 3, "block_tables", DataType::i32);
  take_lengths(l, 4, "context_lens", !l.device().device_lengths);
  if (has_mask && (!spec || masked_by_token(l))) {
    // A mask of the step stays in rows, also where others are in blocks.
    require_type(l, 5, "the mask", l.input(0).dtype);
  } else if (has_mask) {
    take_mask(l, 5);
  }
  if (spec) take_lengths(l, 6, "q_lens", true);
  PagedAttentionParam param{};
  param.headNum = static_cast<int32_t>(l.integer("head_num"));
  param.kvHeadNum = static_cast<int32_t>(l.integer("kv_head_num"));
  param.qkScale = score_scale(l);
  param.maskType = masked_by_token(l)   ? PagedAttentionParam::MASK_TYPE_SPEC
                   : is_mask(l, kAlibi) ? PagedAttentionParam::MASK_TYPE_ALIBI
                   : has_mask           ? PagedAttentionParam::MASK_TYPE_NORM
                                        : PagedAttentionParam::UNDEFINED;
  param.calcType = spec ? PagedAttentionParam::CALC_TYPE_SPEC : PagedAttentionParam::CALC_TYPE_UNDEFINED;
  std::vector<int> inputs;
  for (int i = 0; i < l.num_inputs(); ++i) inputs.push_back(l.in(i));
  l.add("PagedAttention", param, inputs, {l.out(0)});
}

// Writes the caches, which ATB requires among the outputs, too.
void lower_reshape_and_cache(Lowering& l) {
  refuse_int8(l);
  l.require(!l.same(2, 3), "the cache has keys and values in one tensor; give each a tensor");
  l.require(l.rank(0) == 3 && l.rank(1) == 3, "k and v must have three dimensions");
  require_type(l, 1, "v", l.input(0).dtype);
  check_cached_rows(l);
  take_caches(l, 2);
  require_type(l, 4, "slots", DataType::i32);
  ::atb::infer::ReshapeAndCacheParam param{};
  l.add("ReshapeAndCache", param, {l.in(0), l.in(1), l.in(2), l.in(3), l.in(4)}, {l.in(2), l.in(3)});
}

}  // namespace atb_core::ascend
