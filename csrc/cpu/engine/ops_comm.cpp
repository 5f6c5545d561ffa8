// SPDX-License-Identifier: Apache-2.0
// Communication between ranks. This engine runs in one process, so a group has one rank and every collective is the
// identity.
#include "cpu/engine/ops.h"

namespace atb_core::cpu {
namespace {

Bound bind_identity(const Binding& b) {
  b.require(b.integer("rank_size") == 1, "there are ", b.integer("rank_size"),
            " ranks, and the cpu engine runs in one process");
  const TensorView &x = b.in(0), &y = b.out(0);
  b.require_dtype("the output", y, x.dtype);
  b.require(y.numel() == x.numel(), "the output has shape ", shape_text(y), ", x ", shape_text(x));
  return {[&x, &y](const Worker& worker) { copy_bytes(x, y, worker); }};
}

Bound bind_linear_parallel(const Binding& b) {
  b.require(false, "the cpu engine has no LinearParallel: use Linear and AllReduce");
  return {};
}

}  // namespace

void add_comm_ops(CpuOps& ops) {
  ops["AllReduce"] = {.bind = bind_identity, .view = whole_view};
  ops["AllGather"] = {.bind = bind_identity, .view = whole_view};
  ops["LinearParallel"] = {.bind = bind_linear_parallel};
}

}  // namespace atb_core::cpu
