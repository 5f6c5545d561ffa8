// SPDX-License-Identifier: Apache-2.0
#include "cpu/engine/ops.h"
#include "cpu/kernels/sort.h"

namespace atb_core::cpu {
namespace {

void check_rows(const Binding& b, const TensorView& x) {
  b.require(x.rank >= 1, "x has no dimensions");
  b.require(x.dim(-1) <= INT32_MAX, "rows of ", x.dim(-1), " elements are too long");
}

Bound bind_sort(const Binding& b) {
  const TensorView &x = b.in(0), &values = b.out(0), &indices = b.out(1);
  check_rows(b, x);
  const std::vector<int64_t>& num = b.list("num");
  b.require(num.size() == 1 && num[0] >= 0 && num[0] <= x.dim(-1), "num must be one count of at most ", x.dim(-1));
  TensorView expected = x;
  expected.shape[x.rank - 1] = num[0];
  b.require_same(expected, "output 0", values);
  b.require_shape_of(expected, "output 1", indices);
  b.require_dtype("indices", indices, DataType::i32);
  return {[&x, &values, &indices](const Worker& worker) { top({x, values, indices}, worker); },
          top_scratch({x, values, indices})};
}

Bound bind_argsort(const Binding& b) {
  const TensorView &x = b.in(0), &indices = b.out(0);
  check_rows(b, x);
  b.require_dtype("indices", indices, DataType::i32);
  b.require_shape_of(x, "the output", indices);
  return {[&x, &indices](const Worker& worker) { argsort({x, indices}, worker); }};
}

}  // namespace

void add_sort_ops(CpuOps& ops) {
  ops["Sort"] = {.bind = bind_sort};
  ops["Argsort"] = {.bind = bind_argsort};
}

}  // namespace atb_core::cpu
