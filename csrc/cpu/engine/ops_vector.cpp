// SPDX-License-Identifier: Apache-2.0
// Norms, rotary embedding, activations, elementwise arithmetic, softmax, reductions, casts.
#include <map>
#include <string_view>

#include "cpu/engine/ops.h"
#include "cpu/kernels/kernels.h"
#include "cpu/kernels/movement.h"

namespace atb_core::cpu {
namespace {

template <typename Kind>
Kind kind_from(const Binding& b, const std::map<std::string_view, Kind>& kinds, std::string_view attribute) {
  const auto found = kinds.find(b.text(attribute));
  b.require(found != kinds.end(), attribute, " '", b.text(attribute), "' is unknown");
  return found->second;
}

void require_norm_weight(const Binding& b, const TensorView& weight, const TensorView& x) {
  b.require_shape("weight", weight, {x.dim(-1)});
  if (weight.dtype != DataType::f32) b.require_dtype("weight", weight, x.dtype);
}

Bound bind_layer_norm(const Binding& b) {
  const TensorView &x = b.in(0), &weight = b.in(1), &bias = b.in(2), &out = b.out(0);
  b.require_float("x", x);
  b.require(x.rank >= 1, "x has no dimensions");
  require_norm_weight(b, weight, x);
  b.require_same(weight, "bias", bias);
  b.require_same(x, "output", out);
  return {[run = b.kernels.layer_norm, &x, &weight, &bias, &out, epsilon = b.number("epsilon")](const Worker& worker) {
    run({x, weight, bias, out, epsilon}, worker);
  }};
}

Bound bind_rms_norm(const Binding& b) {
  const TensorView &x = b.in(0), &weight = b.in(1), &out = b.out(0);
  b.require_float("x", x);
  b.require(x.rank >= 1, "x has no dimensions");
  require_norm_weight(b, weight, x);
  b.require_same(x, "output", out);
  return {[run = b.kernels.rms_norm, &x, &weight, &out, epsilon = b.number("epsilon")](const Worker& worker) {
    run({x, weight, out, epsilon}, worker);
  }};
}

Bound bind_add_rms_norm(const Binding& b) {
  const TensorView &a = b.in(0), &other = b.in(1), &weight = b.in(2);
  const TensorView &out = b.out(0), &rstd = b.out(1), &sum = b.out(2);
  b.require_float("a", a);
  b.require(a.rank >= 1, "a has no dimensions");
  b.require_same(a, "b", other);
  require_norm_weight(b, weight, a);
  b.require_same(a, "output 0", out);
  b.require_same(a, "output 2", sum);
  b.require_dtype("rstd", rstd, DataType::f32);
  b.require(rstd.numel() == a.count(0, a.rank - 1), "rstd has shape ", shape_text(rstd));
  return {[run = b.kernels.add_rms_norm, &a, &other, &weight, &out, &rstd, &sum, epsilon = b.number("epsilon")](
              const Worker& worker) { run({a, other, weight, out, rstd, sum, epsilon}, worker); }};
}

Bound bind_rope(const Binding& b) {
  const TensorView &q = b.in(0), &k = b.in(1), &cos = b.in(2), &sin = b.in(3), &q_out = b.out(0), &k_out = b.out(1);
  b.require_float("q", q);
  b.require(q.rank == 2 && k.rank == 2 && cos.rank == 2, "q, k and cos must have two dimensions");
  b.require_dtype("k", k, q.dtype);
  b.require(cos.dtype == q.dtype || cos.dtype == DataType::f32, "cos is ", name(cos.dtype), ", not ", name(q.dtype),
            " or float32");
  b.require_same(cos, "sin", sin);
  const int64_t size = cos.dim(1), coefficient = b.integer("rotary_coeff");
  b.require(k.dim(0) == q.dim(0) && cos.dim(0) == q.dim(0), "q ", shape_text(q), ", k ", shape_text(k), " and cos ",
            shape_text(cos), " differ in tokens");
  b.require(size > 0 && size % 2 == 0 && q.dim(1) % size == 0 && k.dim(1) % size == 0, "q ", shape_text(q), " and k ",
            shape_text(k), " are not made of heads of size ", size);
  b.require(coefficient == 2 || coefficient == size, "rotary_coeff is ", coefficient, ", not 2 or the head size ",
            size);
  b.require_same(q, "output 0", q_out);
  b.require_same(k, "output 1", k_out);
  return {[run = b.kernels.rope, &q, &k, &cos, &sin, &q_out, &k_out, coefficient](const Worker& worker) {
    run({q, k, cos, sin, q_out, k_out, coefficient}, worker);
  }};
}

ActivationKind activation_kind(const Binding& b) {
  static const std::map<std::string_view, ActivationKind> kKinds = {
      {"ACTIVATION_RELU", ActivationKind::relu},
      {"ACTIVATION_GELU", ActivationKind::gelu_tanh},
      {"ACTIVATION_FAST_GELU", ActivationKind::fast_gelu},
      {"ACTIVATION_SWISH", ActivationKind::swish},
      {"ACTIVATION_LOG", ActivationKind::log},
      {"ACTIVATION_SWIGLU_FORWARD", ActivationKind::swiglu},
      {"ACTIVATION_SIGMOID", ActivationKind::sigmoid}};
  const ActivationKind kind = kind_from(b, kKinds, "activation_type");
  const std::string& mode = b.text("gelu_mode");
  b.require(mode == "TANH_MODE" || mode == "NONE_MODE", "gelu_mode '", mode, "' is unknown");
  return kind == ActivationKind::gelu_tanh && mode == "NONE_MODE" ? ActivationKind::gelu_erf : kind;
}

Bound bind_activation(const Binding& b) {
  const TensorView &x = b.in(0), &out = b.out(0);
  const ActivationKind kind = activation_kind(b);
  b.require_float("x", x);
  b.require_dtype("output", out, x.dtype);
  b.require(x.rank >= 1 && b.axis(b.integer("dim"), x.rank) == x.rank - 1, "dim must be the last one");
  TensorView expected = x;
  if (kind == ActivationKind::swiglu) {
    b.require(x.dim(-1) % 2 == 0, "the last dimension of x ", shape_text(x), " is odd");
    expected.shape[x.rank - 1] /= 2;
  }
  b.require_same(expected, "output", out);
  return {[run = b.kernels.activation, &x, &out, kind, scale = b.number("scale")](const Worker& worker) {
    run({x, out, kind, scale}, worker);
  }};
}

ElewiseKind elewise_kind(const Binding& b) {
  using K = ElewiseKind;
  static const std::map<std::string_view, K> kKinds = {{"ELEWISE_ADD", K::add},
                                                       {"ELEWISE_SUB", K::sub},
                                                       {"ELEWISE_MUL", K::mul},
                                                       {"ELEWISE_REALDIV", K::realdiv},
                                                       {"ELEWISE_MULS", K::muls},
                                                       {"ELEWISE_COS", K::cos},
                                                       {"ELEWISE_SIN", K::sin},
                                                       {"ELEWISE_NEG", K::neg},
                                                       {"ELEWISE_TANH", K::tanh},
                                                       {"ELEWISE_LOGICAL_NOT", K::logical_not},
                                                       {"ELEWISE_LOGICAL_AND", K::logical_and},
                                                       {"ELEWISE_LOGICAL_OR", K::logical_or},
                                                       {"ELEWISE_LESS", K::less},
                                                       {"ELEWISE_GREATER", K::greater},
                                                       {"ELEWISE_EQUAL", K::equal}};
  return kind_from(b, kKinds, "elewise_type");
}

bool gives_truth(ElewiseKind kind) {
  using K = ElewiseKind;
  return kind == K::logical_not || kind == K::logical_and || kind == K::logical_or || kind == K::less ||
         kind == K::greater || kind == K::equal;
}

// Requires that the output has the shape of numpy's broadcasting.
void require_broadcast(const Binding& b, const TensorView& a, const TensorView& other, const TensorView& out) {
  const auto size = [](const TensorView& view, int axis_from_end) {
    return axis_from_end > view.rank ? int64_t{1} : view.shape[view.rank - axis_from_end];
  };
  bool fits = out.rank == std::max(a.rank, other.rank);
  for (int i = 1; fits && i <= out.rank; ++i) {
    const int64_t left = size(a, i), right = size(other, i);
    fits = (left == right || left == 1 || right == 1) && size(out, i) == (left == 1 ? right : left);
  }
  b.require(fits, shape_text(a), " and ", shape_text(other), " do not broadcast to ", shape_text(out));
}

Bound bind_elewise(const Binding& b) {
  const ElewiseKind kind = elewise_kind(b);
  b.require_inputs(is_unary(kind) ? 1 : 2);
  const TensorView &x = b.in(0), &y = b.in(is_unary(kind) ? 0 : 1), &out = b.out(0);
  b.require_dtype("b", y, x.dtype);
  b.require(elewise_supports(kind, x.dtype), b.text("elewise_type"), " does not take ", name(x.dtype));
  const bool truth = gives_truth(kind);
  b.require(truth ? out.dtype == DataType::i8 || out.dtype == DataType::b8 : out.dtype == x.dtype, "the output is ",
            name(out.dtype));
  require_broadcast(b, x, y, out);
  return {[run = b.kernels.elewise, &x, &y, &out, kind, factor = b.number("var_attr")](const Worker& worker) {
    run({x, y, out, kind, factor}, worker);
  }};
}

// The kernel supports trailing axes. Other axes are moved to the end, in the node's shared memory, and back.
struct TurnedSoftmax {
  CopyPlan there, back;
  TensorView turned;
  int first;
};

Bound turned_softmax(const Binding& b, int first, int last) {
  const TensorView &x = b.in(0), &out = b.out(0);
  std::vector<int64_t> perm, inverse(static_cast<size_t>(x.rank));
  for (int i = 0; i < x.rank; ++i) {
    if (i < first || i > last) perm.push_back(i);
  }
  for (int i = first; i <= last; ++i) perm.push_back(i);
  TurnedSoftmax job{.there = transpose_plan(x, perm), .back = {}, .turned = x, .first = x.rank - (last - first + 1)};
  for (size_t i = 0; i < perm.size(); ++i) {
    inverse[static_cast<size_t>(perm[i])] = static_cast<int64_t>(i);
    job.turned.shape[i] = x.shape[perm[i]];
  }
  job.back = transpose_plan(job.turned, inverse);
  return {[run = b.kernels.softmax, &x, &out, job](const Worker& worker) {
            TensorView turned = job.turned;
            turned.data = worker.shared;
            copy(job.there, x.data, turned.data, worker);
            worker.sync();
            run({turned, turned, job.first}, worker);
            worker.sync();
            copy(job.back, turned.data, out.data, worker);
          },
          {.shared = x.bytes()}};
}

Bound bind_softmax(const Binding& b) {
  const TensorView &x = b.in(0), &out = b.out(0);
  b.require_float("x", x);
  b.require_same(x, "output", out);
  std::vector<int> axes;
  for (int64_t axis : b.list("axes")) axes.push_back(b.axis(axis, x.rank));
  b.require(!axes.empty(), "axes is empty");
  for (size_t i = 1; i < axes.size(); ++i) {
    b.require(axes[i] == axes[0] + static_cast<int>(i), "axes are not consecutive");
  }
  if (axes.back() != x.rank - 1) return turned_softmax(b, axes.front(), axes.back());
  return {[run = b.kernels.softmax, &x, &out, first = axes.front()](const Worker& worker) {
    run({x, out, first}, worker);
  }};
}

Bound bind_reduce(const Binding& b) {
  static const std::map<std::string_view, ReduceKind> kKinds = {
      {"REDUCE_MAX", ReduceKind::max}, {"REDUCE_MIN", ReduceKind::min}, {"REDUCE_SUM", ReduceKind::sum}};
  const ReduceKind kind = kind_from(b, kKinds, "reduce_type");
  const TensorView &x = b.in(0), &out = b.out(0);
  b.require_dtype("output", out, x.dtype);
  b.require(is_float(x.dtype) || x.dtype == DataType::i32 || x.dtype == DataType::i64, "x is ", name(x.dtype));
  uint32_t axes = 0;
  for (int64_t axis : b.list("axis")) axes |= 1u << b.axis(axis, x.rank);
  int64_t kept = 1;
  for (int i = 0; i < x.rank; ++i) {
    if (!(axes >> i & 1)) kept *= x.shape[i];
  }
  b.require(out.numel() == kept, "the output ", shape_text(out), " does not have the dimensions that stay of ",
            shape_text(x));
  return {[run = b.kernels.reduce, &x, &out, kind, axes](const Worker& worker) { run({x, out, kind, axes}, worker); }};
}

Bound bind_cast(const Binding& b) {
  const TensorView &x = b.in(0), &out = b.out(0);
  b.require(name(out.dtype) == b.text("dtype"), "the output is ", name(out.dtype), ", not ", b.text("dtype"));
  b.require_shape_of(x, "the output", out);
  return {[run = b.kernels.cast, &x, &out](const Worker& worker) { run({x, out}, worker); }};
}

std::optional<std::vector<size_t>> view_cast(const Binding& b) {
  return b.in(0).dtype == b.out(0).dtype ? whole_view(b) : std::nullopt;
}

}  // namespace

void add_vector_ops(CpuOps& ops) {
  ops["RmsNorm"] = {.bind = bind_rms_norm};
  ops["LayerNorm"] = {.bind = bind_layer_norm};
  ops["AddRmsNorm"] = {.bind = bind_add_rms_norm};
  ops["Rope"] = {.bind = bind_rope};
  ops["Activation"] = {.bind = bind_activation};
  ops["Elewise"] = {.bind = bind_elewise};
  ops["Softmax"] = {.bind = bind_softmax};
  ops["Reduce"] = {.bind = bind_reduce};
  ops["Cast"] = {.bind = bind_cast, .view = view_cast};
}

}  // namespace atb_core::cpu
