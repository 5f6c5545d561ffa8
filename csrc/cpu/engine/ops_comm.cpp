// SPDX-License-Identifier: Apache-2.0
// Communication between ranks. This engine runs in one process, so a group has one rank and every collective is the
// identity.
#include <cstring>

#include "cpu/engine/ops.h"

namespace atb_core::cpu {
namespace {

void require_alone(const Binding& b) {
  b.require(b.integer("rank_size") == 1, "there are ", b.integer("rank_size"),
            " ranks, and the cpu engine runs in one process");
}

Bound bind_identity(const Binding& b) {
  require_alone(b);
  const TensorView &x = b.in(0), &y = b.out(0);
  b.require_dtype("the output", y, x.dtype);
  b.require(y.numel() == x.numel(), "the output has shape ", shape_text(y), ", x ", shape_text(x));
  return {[&x, &y](const Worker& worker) {
    const auto [begin, end] = worker.share(static_cast<int64_t>(x.bytes()), 4096);
    if (begin < end)
      std::memcpy(y.as<std::byte>() + begin, x.as<std::byte>() + begin, static_cast<size_t>(end - begin));
  }};
}

Bound bind_linear_parallel(const Binding& b) {
  b.require(false, "the cpu engine has no LinearParallel: use Linear and AllReduce");
  return {};
}

std::optional<std::vector<size_t>> same_memory(const Binding&) { return std::vector<size_t>{0}; }

}  // namespace

void add_comm_ops(CpuOps& ops) {
  ops["AllReduce"] = {.bind = bind_identity, .view = same_memory};
  ops["AllGather"] = {.bind = bind_identity, .view = same_memory};
  ops["LinearParallel"] = {.bind = bind_linear_parallel};
}

}  // namespace atb_core::cpu
