// SPDX-License-Identifier: Apache-2.0
// QuantPerChannel, DynamicQuant, QuantLinear and QuantLinearSwiglu.
#include <array>
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
  PackedWeight matrix;
  int64_t m, k;
  bool kn, packs;  // the weight is [k, n]; it is packed for each run
  // The output is silu(gate) times up, the halves of the columns. That is computed where the products are finished, or
  // after them, by the activation.
  bool halves = false;
  void (*activation)(const ActivationArgs&, const Worker&) = nullptr;
  // In the shared memory: the scales, if they are the bits of floats; gate and up; what linear() needs.
  size_t scales_at = 0, sides_at = 0, rest = 0;
  Isa isa;

  const std::byte* pack_weight(const Worker& worker) const;
  const float* unpack_scales(const Worker& worker) const;
  std::array<LinearPart, 2> parts() const;
  void run(const Worker& worker) const;
};

const std::byte* Product::pack_weight(const Worker& worker) const {
  if (!packs) return matrix.data;
  const auto [begin, end] = worker.share(packed_blocks(matrix.n));
  if (end > begin) pack(isa, weight->data, DataType::i8, matrix.n, k, kn, worker.shared, begin, end);
  return worker.shared;
}

const float* Product::unpack_scales(const Worker& worker) const {
  if (scale == nullptr || scale->dtype != DataType::i64) return scale == nullptr ? nullptr : scale->as<float>();
  auto* scales = reinterpret_cast<float*>(worker.shared + scales_at);
  const auto [begin, end] = worker.share(matrix.n, 16);
  for (int64_t i = begin; i < end; ++i) std::memcpy(scales + i, scale->as<int64_t>() + i, sizeof(float));
  return scales;
}

// Returns the parts without addresses: the whole matrix, or gate and up.
std::array<LinearPart, 2> Product::parts() const {
  const int64_t columns = halves ? matrix.n / 2 : matrix.n;
  LinearPart part{.weight = matrix,
                  .begin = 0,
                  .count = columns,
                  .bias = nullptr,
                  .bias_dtype = DataType::i32,
                  .out = nullptr,
                  .out_dtype = out->dtype,
                  .out_ld = activation == nullptr ? columns : matrix.n};
  std::array<LinearPart, 2> both{part, part};
  both[1].begin = columns;
  return both;
}

void Product::run(const Worker& worker) const {
  const std::byte* data = pack_weight(worker);
  const float* scales = unpack_scales(worker);
  if (packs || (scale != nullptr && scale->dtype == DataType::i64)) worker.sync();
  std::byte* to = activation == nullptr ? out->as<std::byte>() : worker.shared + sides_at;
  std::array<LinearPart, 2> ready = parts();
  for (LinearPart& part : ready) {
    part.weight.data = data;
    if (scales != nullptr) part.scales = scales + part.begin;
    if (row_scale != nullptr) part.row_scales = row_scale->as<float>();
    if (bias != nullptr) part.bias = bias->as<int32_t>() + part.begin;
    part.out = to + (activation == nullptr ? 0 : static_cast<size_t>(part.begin) * itemsize(out->dtype));
  }
  const LinearArgs args{.x = x->data,
                        .dtype = DataType::i8,
                        .m = m,
                        .k = k,
                        .x_ld = k,
                        .parts = {ready.data(), halves ? size_t{2} : size_t{1}},
                        .gated = halves && activation == nullptr};
  Worker inner = worker;
  inner.shared += rest;
  inner.shared_bytes -= rest;
  linear(isa, args, inner);
  if (activation == nullptr) return;
  worker.sync();
  activation({{to, out->dtype, 2, {m, matrix.n}}, *out, ActivationKind::swiglu}, worker);
}

void check_product(const Binding& b, const Product& p, int64_t n) {
  b.require_dtype("x", *p.x, DataType::i8);
  b.require_dtype("weight", *p.weight, DataType::i8);
  b.require(p.k <= kMaxIntegerK, "k is ", p.k, "; sums of integers take at most ", kMaxIntegerK);
  b.require(p.weight->dim(p.kn ? 0 : 1) == p.k, "x ", shape_text(*p.x), " and weight ", shape_text(*p.weight),
            " disagree over k");
  const TensorView& out = *p.out;
  const int64_t columns = p.halves ? n / 2 : n;
  b.require(!p.halves || n % 2 == 0, "weight ", shape_text(*p.weight), " has an odd number of outputs");
  b.require(!p.halves || p.scale != nullptr, "the output is ", name(out.dtype), ", not a floating-point type");
  b.require(out.rank == p.x->rank && out.dim(-1) == columns && out.count(0, out.rank - 1) == p.m, "the output is ",
            shape_text(out), ", not ", p.m, " rows of ", columns);
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

// Chooses where the activation is computed, and reserves the memory of a run.
Bound finish(const Binding& b, const std::shared_ptr<Product>& job) {
  const int64_t n = job->matrix.n;
  const PackedWeight* packed = b.packed(1);
  job->packs = packed == nullptr;
  if (packed != nullptr) job->matrix = *packed;
  if (job->halves && !(gate_pays(job->m) && can_gate(job->parts()))) job->activation = b.kernels.activation;
  const bool bits = job->scale != nullptr && job->scale->dtype == DataType::i64;
  const auto rows = static_cast<size_t>(job->m), columns = static_cast<size_t>(n);
  job->scales_at = job->packs ? align_up(packed_bytes(b.isa, DataType::i8, n, job->k)) : 0;
  job->sides_at = job->scales_at + (bits ? align_up(columns * sizeof(float)) : 0);
  job->rest = job->sides_at + (job->activation ? align_up(rows * columns * itemsize(job->out->dtype)) : 0);
  const ScratchSize need = linear_scratch(b.isa, DataType::i8, job->m, job->k);
  const double work = static_cast<double>(n) * static_cast<double>(job->k) * (1 + static_cast<double>(job->m) / 24);
  return {[job](const Worker& worker) { job->run(worker); },
          {.shared = job->rest + need.shared, .per_thread = need.per_thread},
          work};
}

Bound bind_product(const Binding& b, bool halves) {
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
  job->halves = halves;
  b.require(job->x->rank >= 1 && job->weight->rank == 2, "x ", shape_text(*job->x), " and weight ",
            shape_text(*job->weight), " must have one dimension or more, and two");
  job->k = job->x->dim(-1);
  job->m = job->x->count(0, job->x->rank - 1);
  job->matrix = {.dtype = DataType::i8, .n = job->weight->dim(job->kn ? 1 : 0), .k = job->k};
  check_product(b, *job, job->matrix.n);
  return finish(b, job);
}

Bound bind_quant_linear(const Binding& b) { return bind_product(b, false); }
Bound bind_quant_linear_swiglu(const Binding& b) { return bind_product(b, true); }

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
  ops["QuantLinearSwiglu"] = {.bind = bind_quant_linear_swiglu, .weight_use = matrix_use};
}

}  // namespace atb_core::cpu
