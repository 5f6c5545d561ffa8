// SPDX-License-Identifier: Apache-2.0
// SelfAttention, PagedAttention and ReshapeAndCache.
#include <algorithm>
#include <cmath>
#include <initializer_list>
#include <string_view>

#include "cpu/engine/memory.h"
#include "cpu/engine/ops.h"
#include "cpu/kernels/kernels.h"

namespace atb_core::cpu {
namespace {

const TensorView kNone{};
constexpr std::string_view kNorm = "MASK_TYPE_NORM", kAlibi = "MASK_TYPE_ALIBI", kSpec = "MASK_TYPE_SPEC",
                           kNormCompress = "MASK_TYPE_NORM_COMPRESS";

// Returns whether there is a mask, which has to be of one of the types.
bool takes_mask(const Binding& b, std::initializer_list<std::string_view> types) {
  const std::string& type = b.text("mask_type");
  const bool has_mask = type != "MASK_TYPE_UNDEFINED";
  b.require(!has_mask || std::find(types.begin(), types.end(), type) != types.end(), "mask_type '", type,
            "' is not supported there");
  return has_mask;
}

void check_heads(const Binding& b, const TensorView& q, const TensorView& out) {
  const int64_t heads = b.integer("head_num"), kv_heads = b.integer("kv_head_num");
  b.require_float("q", q);
  b.require(heads > 0 && kv_heads > 0 && heads % kv_heads == 0, heads, " heads cannot share ", kv_heads,
            " key/value heads evenly");
  b.require(q.rank == 3 && q.dim(1) == heads && q.dim(2) > 0, "q has shape ", shape_text(q), ", not [tokens, ", heads,
            ", head size]");
  b.require_same(q, "the output", out);
}

// Checks caches for heads of `size` elements, of the type of the queries or new keys, or of int8 with a scale for each.
void check_caches(const Binding& b, const TensorView& k, const TensorView& v, int64_t kv_heads, int64_t size,
                  DataType dtype) {
  const bool scaled = b.flag("int8_kv");
  b.require_dtype("the key cache", k, scaled ? DataType::i8 : dtype);
  const int64_t width = size + (scaled ? static_cast<int64_t>(sizeof(float)) : 0);
  b.require(k.rank == 4 && k.dim(1) > 0 && k.dim(2) == kv_heads && k.dim(3) == width, "the key cache has shape ",
            shape_text(k), ", not [blocks, block size, ", kv_heads, ", ", width, "]");
  b.require_same(k, "the value cache", v);
}

// Returns whether a cache is packed: if no other op reads it and its shape allows it.
bool packs(const Binding& b, const TensorView& cache) {
  b.require(!b.flag("packed_kv") || !b.flag("int8_kv"), "packed_kv does not go with int8_kv");
  return b.flag("packed_kv") && can_pack(cache);
}

void check_lengths(const Binding& b, const char* what, const TensorView& lengths, int64_t count) {
  b.require_dtype(what, lengths, DataType::i32);
  b.require_shape(what, lengths, {count});
}

// Checks a mask [sequences, heads, rows, columns], which has heads if it has values for each, and sequences unless one
// plane serves all. Returns where the rows of a plane are.
MaskRows check_mask(const Binding& b, const TensorView& mask, int64_t sequences, bool by_head) {
  const int64_t heads = by_head ? b.integer("head_num") : 1;
  const int shared_rank = by_head ? 3 : 2;
  const bool by_sequence = mask.rank == shared_rank + 1;
  b.require(is_float(mask.dtype) && (by_sequence || mask.rank == shared_rank) && (!by_head || mask.dim(-3) == heads) &&
                (!by_sequence || mask.dim(0) == sequences) && mask.numel() <= INT32_MAX * mask.dim(-1),
            "mask is ", name(mask.dtype), shape_text(mask), ", which does not fit ", sequences, " sequences and ",
            heads, " heads with values of their own");
  const int64_t rows = mask.dim(-2);
  return {.sequence = by_sequence ? rows * heads : 0, .head = by_head ? rows : 0};
}

// Returns the work of `tokens` queries that each see up to `length` positions. It is bound by arithmetic, not by
// memory.
double attention_work(const TensorView& q, int64_t tokens, int64_t length) {
  return static_cast<double>(tokens) * static_cast<double>(length) * static_cast<double>(q.dim(1) * q.dim(2)) / 4;
}

float scale_of(const Binding& b) { return b.number("q_scale") * b.number("qk_scale"); }

float soft_cap_of(const Binding& b) {
  const float cap = b.number("logits_soft_cap");
  b.require(cap >= 0 && cap < HUGE_VALF, "logits_soft_cap is ", cap, "; it has to be positive, or 0 for none");
  return cap;
}

Bound bind_self_attention(const Binding& b) {
  const bool has_mask = takes_mask(b, {kNorm, kAlibi, kNormCompress}), causal = b.flag("is_triu_mask");
  b.require(b.text("calc_type") == "PA_ENCODER", "calc_type '", b.text("calc_type"), "' is not supported");
  b.require_inputs(has_mask ? 5 : 4);
  const TensorView &q = b.in(0), &k = b.in(1), &v = b.in(2), &lengths = b.in(has_mask ? 4 : 3), &out = b.out(0);
  check_heads(b, q, out);
  const int64_t heads = b.integer("head_num"), kv_heads = b.integer("kv_head_num");
  for (const TensorView* view : {&k, &v}) {
    b.require_dtype("k or v", *view, q.dtype);
    b.require_shape("k or v", *view, {q.dim(0), kv_heads, q.dim(2)});
  }
  b.require(lengths.rank == 1, "seq_len has shape ", shape_text(lengths));
  check_lengths(b, "seq_len", lengths, lengths.dim(0));
  const bool alibi = b.text("mask_type") == kAlibi;
  MaskRows rows = has_mask ? check_mask(b, b.in(3), lengths.dim(0), alibi) : MaskRows{};
  rows.position = 1;
  b.require(causal || b.text("mask_type") != kNormCompress, kNormCompress, " needs is_triu_mask");
  // A causal node does not read its mask, which holds the same rule, unless it has other values.
  const TensorView& mask = has_mask && (!causal || alibi) ? b.in(3) : kNone;
  const SelfAttentionArgs shapes{
      q, k, v, mask, lengths, out, heads, kv_heads, scale_of(b), causal, soft_cap_of(b), rows, b.flag("int8_kv")};
  return {[run = b.kernels.self_attention, &q, &k, &v, &mask, &lengths, &out, shapes](const Worker& worker) {
            run({q, k, v, mask, lengths, out, shapes.heads, shapes.kv_heads, shapes.scale, shapes.causal,
                 shapes.soft_cap, shapes.mask_rows, shapes.int8_kv},
                worker);
          },
          self_attention_scratch(shapes, b.threads), attention_work(q, q.dim(0), q.dim(0))};
}

// Returns where the rows of the mask of a paged attention are, after checking it.
MaskRows paged_mask(const Binding& b, const TensorView& mask, int64_t sequences) {
  const bool by_token = b.text("calc_type") == "CALC_TYPE_SPEC";
  MaskRows rows = check_mask(b, mask, sequences, b.text("mask_type") == kAlibi);
  b.require(by_token == (rows.sequence == 0), "mask has the shape ", shape_text(mask), "; a mask of tokens has two ",
            "dimensions, and one of sequences a plane for each");
  rows.token = by_token ? 1 : 0;
  return rows;
}

Bound bind_paged_attention(const Binding& b) {
  const std::string& calc = b.text("calc_type");
  b.require(calc == "CALC_TYPE_UNDEFINED" || calc == "CALC_TYPE_SPEC", "calc_type '", calc, "' is not supported");
  const bool spec = calc == "CALC_TYPE_SPEC";
  const bool has_mask = spec ? takes_mask(b, {kNorm, kSpec}) : takes_mask(b, {kNorm, kAlibi});
  b.require_inputs(5 + has_mask + spec);
  const TensorView &q = b.in(0), &k = b.in(1), &v = b.in(2), &tables = b.in(3), &lengths = b.in(4), &out = b.out(0);
  check_heads(b, q, out);
  const int64_t heads = b.integer("head_num"), kv_heads = b.integer("kv_head_num");
  check_caches(b, k, v, kv_heads, q.dim(2), q.dtype);
  b.require_dtype("block_tables", tables, DataType::i32);
  b.require(tables.rank == 2, "block_tables has shape ", shape_text(tables));
  check_lengths(b, "context_lens", lengths, tables.dim(0));
  const MaskRows rows = has_mask ? paged_mask(b, b.in(5), tables.dim(0)) : MaskRows{};
  if (spec) check_lengths(b, "q_lens", b.in(5 + has_mask), tables.dim(0));
  b.require(spec || q.dim(0) == tables.dim(0), "q has ", q.dim(0), " tokens for ", tables.dim(0),
            " sequences: without CALC_TYPE_SPEC each has one");
  // With SPEC the causal rule is built in; a mask of the type NORM holds the same rule and is not read.
  const TensorView& mask = has_mask && (!spec || b.text("mask_type") == kSpec) ? b.in(5) : kNone;
  const TensorView& new_tokens = spec ? b.in(5 + has_mask) : kNone;
  const PagedAttentionArgs shapes{q,   k,     v,        tables,      lengths, mask,           new_tokens,
                                  out, heads, kv_heads, scale_of(b), rows,    soft_cap_of(b), packs(b, k)};
  return {[run = b.kernels.paged_attention, &q, &k, &v, &tables, &lengths, &mask, &new_tokens, &out, heads, kv_heads,
           rows, scale = shapes.scale, cap = shapes.soft_cap, packed = shapes.packed_kv](const Worker& worker) {
            run({q, k, v, tables, lengths, mask, new_tokens, out, heads, kv_heads, scale, rows, cap, packed}, worker);
          },
          paged_attention_scratch(shapes, b.threads), attention_work(q, q.dim(0), tables.dim(1) * k.dim(1))};
}

// The least bytes of a cache that a step fills at once for which huge pages are asked for.
constexpr size_t kManyBytes = kHugePage / 8;

// Asks for huge pages where many tokens are stored side by side: attention over a long context waits for page tables
// otherwise, a fifth of its time. Where few tokens are, a huge page would be cleared in vain, in the middle of a decode
// step, which took ten times as long then.
void ask_for_pages(const TensorView& cache, const TensorView& slots) {
  const size_t row = static_cast<size_t>(cache.count(2, 4)) * itemsize(cache.dtype);
  const int64_t tokens = slots.dim(0), limit = cache.count(0, 2);
  const auto* slot = slots.as<int32_t>();
  for (int64_t t = 0, n = 1; t < tokens; t += n, n = 1) {
    while (t + n < tokens && slot[t + n] == slot[t] + n) ++n;
    if (slot[t] < 0 || slot[t] + n > limit || static_cast<size_t>(n) * row < kManyBytes) continue;
    const std::byte* begin = cache.as<std::byte>() + static_cast<size_t>(slot[t]) * row;
    ask_for_huge_pages(begin, begin + static_cast<size_t>(n) * row);
  }
}

Bound bind_reshape_and_cache(const Binding& b) {
  const TensorView &k = b.in(0), &v = b.in(1), &k_cache = b.in(2), &v_cache = b.in(3), &slots = b.in(4);
  b.require(k.rank == 3, "k has shape ", shape_text(k), ", not [tokens, heads, head size]");
  b.require_same(k, "v", v);
  check_caches(b, k_cache, v_cache, k.dim(1), k.dim(2), k.dtype);
  b.require(is_float(k.dtype) || !b.flag("int8_kv"), "k is ", name(k.dtype), "; int8_kv needs a floating-point type");
  check_lengths(b, "slots", slots, k.dim(0));
  return {[run = b.kernels.reshape_and_cache, &k, &v, &k_cache, &v_cache, &slots,
           packed = packs(b, k_cache)](const Worker& worker) {
            if (k.bytes() >= kManyBytes) {
              if (worker.index == 0) ask_for_pages(k_cache, slots);
              if (worker.index == 0) ask_for_pages(v_cache, slots);
              worker.sync();
            }
            run({k, v, k_cache, v_cache, slots, packed}, worker);
          },
          {},
          static_cast<double>(4 * k.bytes())};
}

}  // namespace

void add_attention_ops(CpuOps& ops) {
  ops["SelfAttention"] = {.bind = bind_self_attention};
  ops["PagedAttention"] = {.bind = bind_paged_attention};
  ops["ReshapeAndCache"] = {.bind = bind_reshape_and_cache};
}

}  // namespace atb_core::cpu
