// SPDX-License-Identifier: Apache-2.0
// QuantPerChannel, DynamicQuant and QuantLinear.
#include <cstring>
#include <memory>
#include <optional>

#include "cpu/engine/ops.h"
#include "cpu/kernels/kernels.h"
#include "cpu/kernels/linear.h"

namespace atb_core::cpu {
namespace {

void require_rows_like(const Binding& b, const char* what, const TensorView& view, const TensorView& x) {
  bool same = view.rank == x.rank - 1;
  for (int i = 0; same && i < view.rank; ++i) same = view.dim(i) == x.dim(i);
  b.require(same, what, " has shape ", shape_text(view), ", but x is ", shape_text(x));
}

void require_integers_of(const Binding& b, const TensorView& x, const TensorView& out) {
  b.require_float("x", x);
  b.require(x.rank >= 1, "x has no dimensions");
  b.require_dtype("output 0", out, DataType::i8);
  b.require_shape_of(x, "output 0", out);
}

Bound bind_quant_per_channel(const Binding& b) {
  const TensorView &x = b.in(0), &scale = b.in(1), &offset = b.in(2), &out = b.out(0);
  require_integers_of(b, x, out);
  if (scale.dtype != DataType::f32) b.require_dtype("scale", scale, x.dtype);
  b.require_dtype("offset", offset, DataType::i8);
  b.require(scale.rank == 1 && (scale.dim(0) == 1 || scale.dim(0) == x.dim(-1)), "scale has shape ", shape_text(scale),
            ", not one element or ", x.dim(-1));
  b.require_shape("offset", offset, {scale.dim(0)});
  return {[run = b.kernels.quantize, &x, &scale, &offset, &out](const Worker& worker) {
    run({x, scale, offset, out}, worker);
  }};
}

Bound bind_dynamic_quant(const Binding& b) {
  const TensorView &x = b.in(0), &out = b.out(0), &scale = b.out(1);
  require_integers_of(b, x, out);
  b.require_dtype("output 1", scale, DataType::f32);
  require_rows_like(b, "output 1", scale, x);
  return {[run = b.kernels.dynamic_quant, &x, &out, &scale](const Worker& worker) { run({x, out, scale}, worker); }};
}

// The inputs of a product; null are those that it does not have.
struct Product {
  const TensorView *x, *weight, *scale, *row_scale, *bias, *out;
  LinearPart part;
  int64_t m, k;
  bool kn, packs;              // the weight is [k, n]; it is packed for each run
  size_t scales_at = 0, rest;  // in the shared memory: the scales, if they are the bits of floats; what linear() needs
  Isa isa;

  void run(const Worker& worker) const;
};

void Product::run(const Worker& worker) const {
  LinearPart ready = part;
  if (packs) {
    const auto [begin, end] = worker.share(packed_blocks(part.weight.n));
    if (end > begin) pack(isa, weight->data, DataType::i8, part.weight.n, k, kn, worker.shared, begin, end);
    ready.weight.data = worker.shared;
  }
  if (scale != nullptr && scale->dtype == DataType::i64) {
    auto* scales = reinterpret_cast<float*>(worker.shared + scales_at);
    const auto [begin, end] = worker.share(part.weight.n, 16);
    for (int64_t i = begin; i < end; ++i) std::memcpy(scales + i, scale->as<int64_t>() + i, sizeof(float));
    ready.scales = scales;
  } else if (scale != nullptr) {
    ready.scales = scale->as<float>();
  }
  if (packs || (scale != nullptr && scale->dtype == DataType::i64)) worker.sync();
  if (row_scale != nullptr) ready.row_scales = row_scale->as<float>();
  if (bias != nullptr) ready.bias = bias->data;
  ready.out = out->data;
  const LinearArgs args{.x = x->data, .dtype = DataType::i8, .m = m, .k = k, .x_ld = k, .parts = {&ready, 1}};
  Worker inner = worker;
  inner.shared += rest;
  inner.shared_bytes -= rest;
  linear(isa, args, inner);
}

void check_product(const Binding& b, const Product& p, int64_t n) {
  b.require_dtype("x", *p.x, DataType::i8);
  b.require_dtype("weight", *p.weight, DataType::i8);
  b.require(p.k <= kMaxIntegerK, "k is ", p.k, "; sums of integers take at most ", kMaxIntegerK);
  b.require(p.weight->dim(p.kn ? 0 : 1) == p.k, "x ", shape_text(*p.x), " and weight ", shape_text(*p.weight),
            " disagree over k");
  const TensorView& out = *p.out;
  b.require(out.rank == p.x->rank && out.dim(-1) == n && out.count(0, out.rank - 1) == p.m, "the output is ",
            shape_text(out), ", not ", p.m, " rows of ", n);
  if (p.scale == nullptr) {
    b.require_dtype("the output", out, DataType::i32);
  } else {
    b.require(is_float(out.dtype), "the output is ", name(out.dtype), ", not a floating-point type");
    if (p.scale->dtype != DataType::i64) b.require_dtype("scale", *p.scale, DataType::f32);
    b.require_shape("scale", *p.scale, {n});
  }
  if (p.row_scale != nullptr) {
    b.require_dtype("token_scale", *p.row_scale, DataType::f32);
    require_rows_like(b, "token_scale", *p.row_scale, *p.x);
  }
  if (p.bias == nullptr) return;
  b.require_dtype("bias", *p.bias, DataType::i32);
  b.require_shape("bias", *p.bias, {n});
}

Bound bind_quant_linear(const Binding& b) {
  const bool scaled = b.out(0).dtype != DataType::i32, by_token = b.flag("has_token_scale"),
             biased = b.flag("has_bias");
  b.require_inputs(2 + scaled + by_token + biased);
  b.require(scaled || !by_token, "an int32 result has no token_scale");
  const auto job = std::make_shared<Product>();
  int next = 2;
  job->x = &b.in(0);
  job->weight = &b.in(1);
  job->scale = scaled ? &b.in(next++) : nullptr;
  job->row_scale = by_token ? &b.in(next++) : nullptr;
  job->bias = biased ? &b.in(next++) : nullptr;
  job->out = &b.out(0);
  job->isa = b.isa;
  job->kn = !b.flag("transpose_b");
  b.require(job->x->rank >= 1 && job->weight->rank == 2, "x ", shape_text(*job->x), " and weight ",
            shape_text(*job->weight), " must have one dimension or more, and two");
  job->k = job->x->dim(-1);
  job->m = job->x->count(0, job->x->rank - 1);
  const int64_t n = job->weight->dim(job->kn ? 1 : 0);
  check_product(b, *job, n);
  job->part = {.weight = {.dtype = DataType::i8, .n = n, .k = job->k},
               .begin = 0,
               .count = n,
               .bias = nullptr,
               .bias_dtype = DataType::i32,
               .out = nullptr,
               .out_dtype = job->out->dtype,
               .out_ld = n};
  const PackedWeight* packed = b.packed(1);
  job->packs = packed == nullptr;
  if (packed != nullptr) job->part.weight = *packed;
  job->scales_at = job->packs ? align_up(packed_bytes(b.isa, DataType::i8, n, job->k)) : 0;
  const bool bits = scaled && job->scale->dtype == DataType::i64;
  job->rest = job->scales_at + (bits ? align_up(static_cast<size_t>(n) * sizeof(float)) : 0);
  const ScratchSize need = linear_scratch(b.isa, DataType::i8, job->m, job->k);
  const double work = static_cast<double>(n) * static_cast<double>(job->k) * (1 + static_cast<double>(job->m) / 24);
  return {[job](const Worker& worker) { job->run(worker); },
          {.shared = job->rest + need.shared, .per_thread = need.per_thread},
          work};
}

Bound bind_rms_norm_quant(const Binding& b) {
  b.require(false, "the cpu engine has no RmsNormQuant: use AddRmsNorm or RmsNorm, and QuantPerChannel");
  return {};
}

}  // namespace

void add_quant_ops(CpuOps& ops) {
  ops["QuantPerChannel"] = {.bind = bind_quant_per_channel};
  ops["DynamicQuant"] = {.bind = bind_dynamic_quant};
  ops["atb_quant.RmsNormQuant"] = {.bind = bind_rms_norm_quant};
  ops["QuantLinear"] = {.bind = bind_quant_linear, .weight_use = matrix_use};
}

}  // namespace atb_core::cpu
