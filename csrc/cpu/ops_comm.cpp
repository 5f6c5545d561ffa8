// SPDX-License-Identifier: Apache-2.0
// Communication between ranks. This engine runs in one process: the group is it alone, and every collective the
// identity.
#include <cstring>

#include "cpu/ops.h"

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

std::vector<AttributeSpec> group_attributes(std::vector<AttributeSpec> more) {
  more.insert(more.end(), {{"rank", int64_t{0}},
                           {"rank_size", int64_t{1}},
                           {"backend", std::string("hccl")},
                           {"comm_mode", std::string("COMM_MULTI_PROCESS")},
                           {"comm_domain", std::string()},
                           {"rank_table_file", std::string()}});
  return more;
}

}  // namespace

void add_comm_ops(std::vector<OpDef>& ops) {
  const auto reduce = group_attributes({{"all_reduce_type", std::string("sum")}});
  ops.push_back({"AllReduce", {1, 1}, {1, 1}, reduce, bind_identity, {}, same_memory});
  ops.push_back({"AllGather", {1, 1}, {1, 1}, group_attributes({}), bind_identity, {}, same_memory});
  const auto linear = group_attributes({{"trans_weight", true}});
  ops.push_back({"LinearParallel", {2, 2}, {1, 1}, linear, bind_linear_parallel});
}

}  // namespace atb_core::cpu
