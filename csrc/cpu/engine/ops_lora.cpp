// SPDX-License-Identifier: Apache-2.0
// Lora: the low-rank products of adapters.
#include <numeric>

#include "cpu/engine/ops.h"

namespace atb_core::cpu {
namespace {

Bound bind_lora(const Binding& b) {
  b.require_inputs(7);
  const TensorView &y = b.in(0), &x = b.in(1), &a = b.in(2), &out = b.out(0), &slots = b.in(5), &ranks = b.in(6);
  const std::vector<int64_t>& sizes = b.list("sizes");
  const auto parts = static_cast<int64_t>(sizes.size());
  b.require_float("x", x);
  b.require(x.rank == 2 && y.rank == 2 && a.rank == 3, "x ", shape_text(x), " and y ", shape_text(y),
            " must have two dimensions, a ", shape_text(a), " three");
  int64_t n = 0;
  for (int64_t size : sizes) {
    b.require(size >= 0 && size <= y.dim(1) - n, "size ", size, " does not fit into y ", shape_text(y));
    n += size;
  }
  const int64_t count = a.dim(0);
  b.require(parts > 0 && n == y.dim(1), "the sizes add up to ", n, ", not to the columns of y ", shape_text(y));
  b.require(a.dim(2) == x.dim(1) && a.dim(1) % parts == 0, "a ", shape_text(a), " does not fit x ", shape_text(x),
            " and ", parts, " parts");
  b.require_shape("y", y, {x.dim(0), n});
  b.require_shape("b", b.in(3), {count, a.dim(1) / parts, n});
  b.require_shape("bias", b.in(4), {count, n});
  b.require_shape("output", out, {x.dim(0), n});
  for (int i : {0, 2, 3, 4}) b.require_dtype("an input", b.in(i), x.dtype);
  b.require_dtype("output", out, x.dtype);
  b.require_dtype("slots", slots, DataType::i32);
  b.require_dtype("ranks", ranks, DataType::i32);
  b.require(slots.rank == 1 && (slots.dim(0) == 1 || slots.dim(0) == x.dim(0)), "slots ", shape_text(slots),
            " must have one entry, or one for each of ", x.dim(0), " tokens");
  const int64_t first = b.integer("first");
  b.require(ranks.rank == 2 && ranks.dim(0) == count && first >= 0 && first <= ranks.dim(1) - parts, "ranks ",
            shape_text(ranks), " has not the columns ", first, " to ", first + parts - 1, " of ", count, " slots");
  const auto args = [&y, &x, &a, &b1 = b.in(3), &bias = b.in(4), &slots, &ranks, &out, sizes, parts, first] {
    return LoraArgs{y, x, a, b1, bias, slots, ranks, out, sizes.data(), parts, first};
  };
  // The memory that is read once: at most one adapter for each token.
  const int64_t adapters = std::min(count, x.dim(0));
  const double work = static_cast<double>((a.dim(1) * x.dim(1) + (a.dim(1) / parts + 4) * n) * adapters) *
                      static_cast<double>(itemsize(x.dtype));
  return {[run = b.kernels.lora, args](const Worker& worker) { run(args(), worker); }, lora_scratch(args()), work};
}

}  // namespace

void add_lora_ops(CpuOps& ops) { ops["Lora"] = {.bind = bind_lora}; }

}  // namespace atb_core::cpu
