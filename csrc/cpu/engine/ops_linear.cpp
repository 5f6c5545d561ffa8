// SPDX-License-Identifier: Apache-2.0
// Linear, LinearSwiglu, MergedLinear and SplitLinear.
#include <algorithm>
#include <cstring>
#include <memory>
#include <optional>

#include "cpu/engine/ops.h"
#include "cpu/kernels/linear.h"
#include "cpu/kernels/movement.h"

namespace atb_core::cpu {
namespace {

// A weight that is not stored packed (an ordinary input, or one that other ops need plain) and is packed for each run.
struct Unpacked {
  const TensorView* source;
  int64_t n, k;
  bool kn;
  size_t offset;  // in the node's shared memory
  size_t part;
  bool packs;  // false: an earlier part of the same matrix packs it
};

// One product of the node: the indices of its parts and memory.
struct Part {
  const TensorView* bias;  // may be null
  const TensorView* out;
  int64_t bias_begin, out_begin;  // the part's first column in both
};

// The job that runs: `parts` has all that does not change; addresses are filled in for each run.
struct Job {
  const TensorView* x;
  LinearArgs args;
  std::vector<LinearPart> parts;
  std::vector<Part> views;
  std::vector<Unpacked> unpacked;
  // Of a gate that is not part of the products: both sides, [m, 2 h], and where in the shared memory they are.
  std::optional<TensorView> sides;
  size_t sides_offset = 0;
  void (*activation)(const ActivationArgs&, const Worker&) = nullptr;
  std::optional<CopyPlan> turn;  // x is [k, m]
  size_t turned_offset = 0;
  size_t shared_offset = 0;   // of the shared memory that linear() uses
  size_t scratch_offset = 0;  // behind this thread's copy of `parts`
  Isa isa;

  void run(const Worker& worker) const;
};

void Job::run(const Worker& worker) const {
  for (const Unpacked& weight : unpacked) {
    if (!weight.packs) continue;
    const auto [begin, end] = worker.share(packed_blocks(weight.n));
    if (end > begin) {
      pack(isa, weight.source->data, weight.source->dtype, weight.n, weight.k, weight.kn, worker.shared + weight.offset,
           begin, end);
    }
  }
  if (turn) copy(*turn, x->data, worker.shared + turned_offset, worker);
  if (!unpacked.empty() || turn) worker.sync();

  auto* mine = reinterpret_cast<LinearPart*>(worker.scratch);
  std::memcpy(worker.scratch, parts.data(), parts.size() * sizeof(LinearPart));
  for (size_t i = 0; i < parts.size(); ++i) {
    if (const TensorView* bias = views[i].bias) {
      mine[i].bias = bias->as<std::byte>() + static_cast<size_t>(views[i].bias_begin) * itemsize(bias->dtype);
    }
    const TensorView* out = views[i].out;
    std::byte* to = sides ? worker.shared + sides_offset : out->as<std::byte>();
    mine[i].out = to + static_cast<size_t>(views[i].out_begin) * itemsize(out->dtype);
  }
  for (const Unpacked& weight : unpacked) mine[weight.part].weight.data = worker.shared + weight.offset;
  LinearArgs ready = args;
  ready.x = turn ? static_cast<const void*>(worker.shared + turned_offset) : x->data;
  ready.parts = {mine, parts.size()};
  Worker inner = worker;
  inner.scratch += scratch_offset;
  inner.scratch_bytes -= scratch_offset;
  inner.shared += shared_offset;
  inner.shared_bytes -= shared_offset;
  linear(isa, ready, inner);
  if (!sides) return;
  worker.sync();
  ActivationArgs swiglu{*sides, *views.front().out, ActivationKind::swiglu};
  swiglu.x.data = worker.shared + sides_offset;
  activation(swiglu, worker);
}
static_assert(std::is_trivially_copyable_v<LinearPart>);

// Collects and checks the products of a node over one x.
class Builder {
 public:
  Builder(const Binding& binding, bool transpose_a) : binding_(binding), job_(std::make_shared<Job>()) {
    const TensorView& x = binding.in(0);
    binding.require_float("x", x);
    binding.require(x.rank >= (transpose_a ? 2 : 1), "x ", shape_text(x), " has too few dimensions");
    binding.require(!transpose_a || x.rank == 2, "transpose_a takes an x of two dimensions, not ", shape_text(x));
    const int64_t k = transpose_a ? x.dim(0) : x.dim(-1), m = transpose_a ? x.dim(1) : x.count(0, x.rank - 1);
    job_->x = &x;
    job_->isa = binding.isa;
    job_->args = {.x = nullptr, .dtype = x.dtype, .m = m, .k = k, .x_ld = k, .parts = {}};
    if (transpose_a) {
      const int64_t perm[] = {1, 0};
      job_->turn = transpose_plan(x, perm);
      job_->turned_offset = reserve(x.bytes());
    }
  }

  // Adds the product with columns [begin, begin + count) of the weight at input `weight`, written to output `out`.
  void add(int weight, bool kn, std::optional<int> bias, int out, int64_t begin, int64_t count) {
    const TensorView& y = binding_.out(out);
    const int64_t m = job_->args.m;
    binding_.require(y.rank >= 1 && y.dim(-1) == count && y.count(0, y.rank - 1) == m, "output ", out, " is ",
                     shape_text(y), ", not ", m, " rows of ", count);
    if (y.dtype != DataType::f32) binding_.require_dtype("an output", y, job_->args.dtype);
    const TensorView* bias_view = bias ? &binding_.in(*bias) : nullptr;
    if (bias_view != nullptr) {
      binding_.require_shape("bias", *bias_view, {columns(weight, kn)});
      binding_.require(is_float(bias_view->dtype), "bias is ", name(bias_view->dtype));
    }
    const LinearPart part{.weight = matrix(weight, kn),
                          .begin = begin,
                          .count = count,
                          .bias = nullptr,
                          .bias_dtype = bias_view == nullptr ? y.dtype : bias_view->dtype,
                          .out = nullptr,
                          .out_dtype = y.dtype,
                          .out_ld = count};
    if (part.weight.pieces.empty()) {
      job_->parts.push_back(part);
      job_->views.push_back({bias_view, &y, begin, 0});
      return;
    }
    int64_t start = 0;  // of the piece
    for (const PackedWeight& piece : part.weight.pieces) {
      const int64_t from = std::max(begin, start), to = std::min(begin + count, start + piece.n);
      if (from < to) {
        LinearPart own = part;
        own.weight = piece;
        own.begin = from - start;
        own.count = to - from;
        job_->parts.push_back(own);
        job_->views.push_back({bias_view, &y, from, from - begin});
      }
      start += piece.n;
    }
  }

  // Adds both halves of the weight at input 1: the output is silu(first) * second. That is computed where the products
  // are finished or, if these cannot be computed together, after them.
  void add_gated(std::optional<int> bias) {
    const TensorView& y = binding_.out(0);
    const int64_t rows = columns(1, false), half = rows / 2;
    binding_.require(rows % 2 == 0, "weight ", shape_text(binding_.in(1)), " has an odd number of rows");
    binding_.require_dtype("the output", y, job_->args.dtype);
    add(1, false, bias, 0, 0, half);
    const size_t second = job_->parts.size();
    add(1, false, bias, 0, half, half);
    if (gate_pays(job_->args.m) && can_gate(job_->parts)) {
      job_->args.gated = true;
      return;
    }
    job_->sides = {.data = nullptr, .dtype = y.dtype, .rank = 2, .shape = {job_->args.m, rows}};
    job_->sides_offset = reserve(job_->sides->bytes());
    job_->activation = binding_.kernels.activation;
    for (size_t i = 0; i < job_->parts.size(); ++i) {
      job_->parts[i].out_ld = rows;
      if (i >= second) job_->views[i].out_begin += half;
    }
  }

  int64_t columns(int weight, bool kn) const { return binding_.in(weight).dim(kn ? 1 : 0); }

  void check_weight(int weight, bool kn) const {
    const TensorView& w = binding_.in(weight);
    binding_.require_dtype("weight", w, job_->args.dtype);
    binding_.require(w.rank == 2, "weight ", shape_text(w), " must have two dimensions");
    const int64_t k = w.dim(kn ? 0 : 1);
    binding_.require(k == job_->args.k, "x ", shape_text(*job_->x), " and weight ", shape_text(w), " disagree over k");
  }

  Bound finish() {
    Job& job = *job_;
    ScratchSize need;
    for (const LinearPart& part : job.parts) {
      const ScratchSize own = linear_scratch(job.isa, job.args.dtype, job.args.m, job.args.k, part.weight.format);
      need = {std::max(need.shared, own.shared), std::max(need.per_thread, own.per_thread)};
    }
    job.shared_offset = shared_;
    job.scratch_offset = align_up(job.parts.size() * sizeof(LinearPart));
    const ScratchSize scratch{.shared = shared_ + need.shared, .per_thread = job.scratch_offset + need.per_thread};
    return {[job = job_](const Worker& worker) { job->run(worker); }, scratch, work()};
  }

 private:
  // Returns the work: the weights once, and the multiplications, of which a thread does a dozen in the time of a byte.
  double work() const {
    double columns = 0;
    for (const LinearPart& part : job_->parts) columns += static_cast<double>(part.count);
    const double k = static_cast<double>(job_->args.k), m = static_cast<double>(job_->args.m);
    return columns * k * (static_cast<double>(itemsize(job_->args.dtype)) + m / 12);
  }

  size_t reserve(size_t bytes) {
    const size_t offset = shared_;
    shared_ += align_up(bytes);
    return offset;
  }

  PackedWeight matrix(int weight, bool kn) {
    const TensorView& w = binding_.in(weight);
    const int64_t n = columns(weight, kn), k = w.dim(kn ? 0 : 1);
    if (const PackedWeight* packed = binding_.packed(weight)) return *packed;
    Unpacked entry{&w, n, k, kn, 0, job_->parts.size(), true};
    for (const Unpacked& other : job_->unpacked) {
      if (other.source != &w) continue;
      entry.offset = other.offset;
      entry.packs = false;
    }
    if (entry.packs) entry.offset = reserve(packed_bytes(binding_.isa, w.dtype, n, k));
    job_->unpacked.push_back(entry);
    return {.dtype = w.dtype, .n = n, .k = k, .data = nullptr};
  }

  const Binding& binding_;
  std::shared_ptr<Job> job_;
  size_t shared_ = 0;
};

Bound bind_linear(const Binding& b) {
  const bool kn = !b.flag("transpose_b"), has_bias = b.flag("has_bias");
  b.require_inputs(has_bias ? 3 : 2);
  Builder builder(b, b.flag("transpose_a"));
  builder.check_weight(1, kn);
  builder.add(1, kn, has_bias ? std::optional(2) : std::nullopt, 0, 0, builder.columns(1, kn));
  return builder.finish();
}

Bound bind_linear_swiglu(const Binding& b) {
  const bool has_bias = b.flag("has_bias");
  b.require_inputs(has_bias ? 3 : 2);
  Builder builder(b, false);
  builder.check_weight(1, false);
  builder.add_gated(has_bias ? std::optional(2) : std::nullopt);
  return builder.finish();
}

Bound bind_merged_linear(const Binding& b) {
  const int64_t parts = b.integer("parts");
  const bool has_bias = b.flag("has_bias");
  b.require(parts == b.num_outputs(), "parts is ", parts, ", but there are ", b.num_outputs(), " outputs");
  b.require_inputs(static_cast<int>(1 + parts * (has_bias ? 2 : 1)));
  Builder builder(b, false);
  for (int i = 0; i < static_cast<int>(parts); ++i) {
    builder.check_weight(1 + i, false);
    const int bias = 1 + static_cast<int>(parts) + i;
    builder.add(1 + i, false, has_bias ? std::optional(bias) : std::nullopt, i, 0, builder.columns(1 + i, false));
  }
  return builder.finish();
}

Bound bind_split_linear(const Binding& b) {
  const std::vector<int64_t>& sizes = b.list("sizes");
  const bool has_bias = b.flag("has_bias");
  b.require(static_cast<int>(sizes.size()) == b.num_outputs(), "there are ", sizes.size(), " sizes and ",
            b.num_outputs(), " outputs");
  b.require_inputs(has_bias ? 3 : 2);
  Builder builder(b, false);
  builder.check_weight(1, false);
  int64_t begin = 0;
  for (size_t i = 0; i < sizes.size(); ++i) {
    b.require(sizes[i] >= 0 && sizes[i] <= builder.columns(1, false) - begin, "size ", sizes[i],
              " does not fit into the weight ", shape_text(b.in(1)));
    builder.add(1, false, has_bias ? std::optional(2) : std::nullopt, static_cast<int>(i), begin, sizes[i]);
    begin += sizes[i];
  }
  b.require(begin == builder.columns(1, false), "the sizes add up to ", begin, ", not to the weight's ",
            builder.columns(1, false), " rows");
  return builder.finish();
}

WeightUse merged_linear_use(const Attributes& attributes, int index) {
  const int64_t parts = std::get<int64_t>(attributes.find("parts")->second);
  return index >= 1 && index <= parts ? WeightUse::linear_nk : WeightUse::plain;
}

WeightUse packed_use(const Attributes&, int index) { return index == 1 ? WeightUse::linear_nk : WeightUse::plain; }

}  // namespace

void add_linear_ops(CpuOps& ops) {
  ops["Linear"] = {.bind = bind_linear, .weight_use = matrix_use};
  ops["LinearSwiglu"] = {.bind = bind_linear_swiglu, .weight_use = packed_use};
  ops["MergedLinear"] = {.bind = bind_merged_linear, .weight_use = merged_linear_use};
  ops["SplitLinear"] = {.bind = bind_split_linear, .weight_use = packed_use};
}

}  // namespace atb_core::cpu
