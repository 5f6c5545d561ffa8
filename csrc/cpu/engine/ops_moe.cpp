// SPDX-License-Identifier: Apache-2.0
// Mixture of experts: MoeTopkSoftmax, MoeInitRouting, GroupedMatmul, MoeTokenUnpermute.
#include <algorithm>
#include <memory>
#include <optional>

#include "cpu/engine/ops.h"
#include "cpu/kernels/linear.h"
#include "cpu/kernels/moe.h"

namespace atb_core::cpu {
namespace {

// Requires that int32 can number rows and choices.
void require_countable(const Binding& b, int64_t rows) { b.require(rows <= INT32_MAX, rows, " rows are too many"); }

Bound bind_topk_softmax(const Binding& b) {
  const TensorView &x = b.in(0), &weights = b.out(0), &indices = b.out(1), &rows = b.out(2);
  b.require_float("x", x);
  b.require(x.rank == 2, "x ", shape_text(x), " must have two dimensions");
  const int64_t tokens = x.dim(0), k = b.integer("topk_num");
  b.require(k >= 1 && k <= x.dim(1) && x.dim(1) <= INT32_MAX, "topk_num is ", k, " of ", x.dim(1), " experts");
  require_countable(b, tokens * k);
  b.require_shape("weights", weights, {tokens, k});
  b.require_dtype("weights", weights, DataType::f32);
  for (const TensorView* out : {&indices, &rows}) {
    b.require_shape("indices", *out, {tokens, k});
    b.require_dtype("indices", *out, DataType::i32);
  }
  const TopkSoftmaxArgs shapes{x, weights, indices, rows};
  return {[run = b.kernels.topk_softmax, &x, &weights, &indices, &rows, normalize = b.flag("normalize")](
              const Worker& worker) { run({x, weights, indices, rows, normalize}, worker); },
          topk_softmax_scratch(shapes)};
}

Bound bind_init_routing(const Binding& b) {
  const TensorView &x = b.in(0), &experts = b.in(1), &rows = b.out(0), &places = b.out(1), &ends = b.out(2);
  const int64_t k = b.integer("topk_num"), count = b.integer("expert_num");
  b.require(x.rank == 2, "x ", shape_text(x), " must have two dimensions");
  b.require(k >= 1 && count >= 1, "topk_num is ", k, " and expert_num is ", count);
  const int64_t chosen = x.dim(0) * k;
  require_countable(b, chosen);
  b.require_shape("expert_idx", experts, {x.dim(0), k});
  b.require_dtype("expert_idx", experts, DataType::i32);
  b.require_shape("expanded_x", rows, {chosen, x.dim(1)});
  b.require_dtype("expanded_x", rows, x.dtype);
  b.require_shape("expanded_row_idx", places, {chosen});
  b.require_dtype("expanded_row_idx", places, DataType::i32);
  b.require_shape("group_list", ends, {count});
  b.require_dtype("group_list", ends, DataType::i64);
  return {[&x, &experts, &rows, &places, &ends](const Worker& worker) {
            init_routing({x, experts, rows, places, ends}, worker);
          },
          init_routing_scratch({x, experts, rows, places, ends})};
}

Bound bind_token_unpermute(const Binding& b) {
  const TensorView &x = b.in(0), &places = b.in(1), &probs = b.in(2), &out = b.out(0);
  b.require_float("x", x);
  b.require_float("probs", probs);
  b.require(x.rank == 2 && probs.rank == 2, "x ", shape_text(x), " and probs ", shape_text(probs),
            " must have two dimensions");
  const int64_t chosen = probs.numel();
  b.require(x.dim(0) == chosen, "x ", shape_text(x), " has not the rows of probs ", shape_text(probs));
  b.require_shape("row_idx", places, {chosen});
  b.require_dtype("row_idx", places, DataType::i32);
  b.require_shape("output", out, {probs.dim(0), x.dim(1)});
  b.require_dtype("output", out, x.dtype);
  return {[run = b.kernels.token_unpermute, &x, &places, &probs, &out](const Worker& worker) {
            run({x, places, probs, out}, worker);
          },
          token_unpermute_scratch({x, places, probs, out})};
}

// A product of groups. If the weight is not stored packed (an ordinary input, or one that other ops need plain), the
// matrices of groups with rows are packed for each run.
struct GroupedJob {
  Isa isa;
  const TensorView *x, *weight, *bias, *ends, *out;  // bias and ends may be null
  PackedWeight matrices;
  int64_t rows;                    // of all groups
  std::vector<int64_t> even = {};  // the ends of groups of one size, without `ends`
  bool packs, kn;
  size_t one = 0, all = 0;  // bytes of one packed matrix and of all, at the start of the node's shared memory

  const int64_t* group_ends() const { return ends == nullptr ? even.data() : ends->as<int64_t>(); }
  void pack_used(const Worker& worker) const;
  void run(const Worker& worker) const;
};

void GroupedJob::pack_used(const Worker& worker) const {
  const int64_t n = matrices.n, k = matrices.k;
  const auto [begin, end] = worker.share(packed_blocks(n));
  const size_t source = static_cast<size_t>(n * k) * itemsize(matrices.dtype);
  const int64_t* const last = group_ends();
  for (int64_t e = 0, row = 0; e < matrices.count && end > begin; row = last[e++]) {
    if (last[e] == row) continue;
    pack(isa, weight->as<std::byte>() + static_cast<size_t>(e) * source, matrices.dtype, n, k, kn,
         worker.shared + static_cast<size_t>(e) * one, begin, end);
  }
  worker.sync();
}

void GroupedJob::run(const Worker& worker) const {
  if (!groups_fit(group_ends(), matrices.count, rows, worker)) return;
  GroupedLinearArgs args{.x = x->data,
                         .m = rows,
                         .ends = group_ends(),
                         .weight = matrices,
                         .bias = bias == nullptr ? nullptr : bias->data,
                         .bias_dtype = bias == nullptr ? out->dtype : bias->dtype,
                         .out = out->data,
                         .out_dtype = out->dtype};
  if (!packs) return grouped_linear(isa, args, worker);
  pack_used(worker);
  args.weight.data = worker.shared;
  Worker inner = worker;
  inner.shared += all;
  inner.shared_bytes -= all;
  grouped_linear(isa, args, inner);
}

void check_grouped(const Binding& b, bool kn, bool has_bias) {
  const TensorView &x = b.in(0), &weight = b.in(1), &ends = b.in(b.num_inputs() - 1), &out = b.out(0);
  b.require_float("x", x);
  b.require(x.rank == 2, "x ", shape_text(x), " must have two dimensions");
  b.require(weight.rank == 3, "weight ", shape_text(weight), " must have three dimensions");
  b.require_dtype("weight", weight, x.dtype);
  const int64_t n = weight.dim(kn ? 2 : 1), k = weight.dim(kn ? 1 : 2);
  b.require(x.dim(1) == k, "x ", shape_text(x), " and weight ", shape_text(weight), " disagree over k");
  b.require_shape("group_list", ends, {weight.dim(0)});
  b.require_dtype("group_list", ends, DataType::i64);
  b.require_shape("output", out, {x.dim(0), n});
  if (out.dtype != DataType::f32) b.require_dtype("output", out, x.dtype);
  if (!has_bias) return;
  b.require_shape("bias", b.in(2), {weight.dim(0), n});
  b.require_float("bias", b.in(2));
}

// Returns the work: the matrices that can have rows once, and the multiplications, of which a thread does a dozen in
// the time of a byte.
double grouped_work(const PackedWeight& matrices, int64_t rows) {
  const double size = static_cast<double>(matrices.n) * static_cast<double>(matrices.k);
  const double used = static_cast<double>(std::min(matrices.count, rows));
  return size * (used * static_cast<double>(itemsize(matrices.dtype)) + static_cast<double>(rows) / 12);
}

// Completes the job of a node whose matrices are its input 1, and returns it as its kernel.
Bound bind_job(const Binding& b, std::shared_ptr<GroupedJob> job) {
  const TensorView &x = *job->x, &weight = *job->weight;
  job->packs = b.packed(1) == nullptr;
  if (!job->packs) {
    job->matrices = *b.packed(1);
  } else {
    job->matrices = {x.dtype, weight.dim(job->kn ? 2 : 1), x.dim(-1), nullptr, weight.dim(0)};
    job->one = packed_bytes(b.isa, x.dtype, job->matrices.n, job->matrices.k);
    job->all = static_cast<size_t>(weight.dim(0)) * job->one;
  }
  const ScratchSize need = grouped_linear_scratch(b.isa, x.dtype, job->rows, x.dim(-1));
  return {[job](const Worker& worker) { job->run(worker); },
          {.shared = job->all + need.shared, .per_thread = need.per_thread},
          grouped_work(job->matrices, job->rows)};
}

Bound bind_batch_matmul(const Binding& b) {
  const bool kn = !b.flag("transpose_b");
  const TensorView &x = b.in(0), &weight = b.in(1), &out = b.out(0);
  b.require_float("x", x);
  b.require(x.rank == 3 && weight.rank == 3, "x ", shape_text(x), " and weight ", shape_text(weight),
            " must have three dimensions");
  b.require_dtype("weight", weight, x.dtype);
  b.require(weight.dim(0) == x.dim(0) && weight.dim(kn ? 1 : 2) == x.dim(2), "x ", shape_text(x), " and weight ",
            shape_text(weight), " disagree over the batch or over k");
  b.require_shape("output", out, {x.dim(0), x.dim(1), weight.dim(kn ? 2 : 1)});
  b.require_dtype("output", out, x.dtype);
  auto job = std::make_shared<GroupedJob>(GroupedJob{.isa = b.isa,
                                                     .x = &x,
                                                     .weight = &weight,
                                                     .bias = nullptr,
                                                     .ends = nullptr,
                                                     .out = &out,
                                                     .matrices = {},
                                                     .rows = x.dim(0) * x.dim(1),
                                                     .packs = true,
                                                     .kn = kn});
  for (int64_t i = 1; i <= x.dim(0); ++i) job->even.push_back(i * x.dim(1));
  return bind_job(b, std::move(job));
}

Bound bind_grouped_matmul(const Binding& b) {
  const bool kn = !b.flag("transpose_b"), has_bias = b.flag("has_bias");
  b.require_inputs(has_bias ? 4 : 3);
  check_grouped(b, kn, has_bias);
  const TensorView &x = b.in(0), &weight = b.in(1);
  auto job = std::make_shared<GroupedJob>(GroupedJob{.isa = b.isa,
                                                     .x = &x,
                                                     .weight = &weight,
                                                     .bias = has_bias ? &b.in(2) : nullptr,
                                                     .ends = &b.in(b.num_inputs() - 1),
                                                     .out = &b.out(0),
                                                     .matrices = {},
                                                     .rows = x.dim(0),
                                                     .packs = true,
                                                     .kn = kn});
  return bind_job(b, std::move(job));
}

}  // namespace

void add_moe_ops(CpuOps& ops) {
  ops["MoeTopkSoftmax"] = {.bind = bind_topk_softmax};
  ops["MoeInitRouting"] = {.bind = bind_init_routing};
  ops["GroupedMatmul"] = {.bind = bind_grouped_matmul, .weight_use = matrix_use};
  ops["BatchMatmul"] = {.bind = bind_batch_matmul, .weight_use = matrix_use};
  ops["MoeTokenUnpermute"] = {.bind = bind_token_unpermute};
}

}  // namespace atb_core::cpu
