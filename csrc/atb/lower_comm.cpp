// SPDX-License-Identifier: Apache-2.0
// AllReduce, AllGather and LinearParallel.
#include <acl/acl.h>

#include <string>
#include <type_traits>

#include "atb/lower_rules.h"

namespace atb_core::ascend {
namespace {

// Without a rank table ATB opens a communicator of its own, for devices of this process.
void check_ranks(const Lowering& l, int64_t ranks) {
  uint32_t count = 0;
  if (!l.text("rank_table_file").empty() || aclrtGetDeviceCount(&count) != ACL_SUCCESS) return;
  l.require(ranks <= count, "rank_size is ", ranks, " and the process sees ", count,
            count == 1 ? " device" : " devices",
            ": let it see all (ASCEND_RT_VISIBLE_DEVICES), or give rank_table_file");
}

// Sets the fields that all of ATB's communication parameters have, in an order of their own each.
template <typename Param>
void set_group(Lowering& l, Param& param) {
  param.rank = static_cast<int>(l.integer("rank"));
  param.rankSize = static_cast<int>(l.integer("rank_size"));
  param.backend = l.text("backend");
  l.require(param.backend != "lccl" || l.device().lccl, "it has no LCCL: take backend hccl");
  l.require(param.backend != "lcoc" || std::is_same_v<Param, ::atb::infer::LinearParallelParam>,
            "LCOC is for LinearParallel alone: take backend hccl or lccl");
  check_ranks(l, param.rankSize);
  param.commMode =
      l.text("comm_mode") == "COMM_MULTI_THREAD" ? ::atb::infer::COMM_MULTI_THREAD : ::atb::infer::COMM_MULTI_PROCESS;
  param.rankTableFile = l.text("rank_table_file");
  param.commDomain = l.text("comm_domain");
}

void check_integers(const Lowering& l) {
  if (l.input(0).dtype != DataType::i64) return;
  l.require(l.text("backend") != "lccl", "LCCL has no int64: take backend hccl, or cast x to int32 first");
  l.require(l.device().family != Family::ascend310p, "HCCL has no int64 there: cast x to int32 first");
}

}  // namespace

void lower_all_reduce(Lowering& l) {
  require_result_type(l);
  ::atb::infer::AllReduceParam param{};
  set_group(l, param);
  param.allReduceType = l.text("all_reduce_type");
  const bool product = param.allReduceType == "prod";
  l.require(param.backend != "lccl" || !product, "LCCL has no product: take backend hccl");
  l.require(!product || l.input(0).dtype != DataType::bf16, "there is no product of bfloat16: cast x to float32 first");
  check_integers(l);
  l.add("AllReduce", param, {l.in(0)}, {l.out(0)});
}

void lower_all_gather(Lowering& l) {
  require_result_type(l);
  ::atb::infer::AllGatherParam param{};
  set_group(l, param);
  l.add("AllGather", param, {l.in(0)}, {l.out(0)});
}

void lower_linear_parallel(Lowering& l) {
  l.require(l.device().family != Family::ascend310p, "ATB has no LinearParallel there: take Linear and AllReduce");
  require_result_type(l);
  ::atb::infer::LinearParallelParam param{};
  set_group(l, param);
  const int ranks = param.rankSize;
  l.require(param.backend != "lcoc" || (ranks & (ranks - 1)) == 0, "with LCOC the ranks are a power of two, not ",
            ranks, ": take backend hccl or lccl");
  param.transWeight = l.flag("trans_weight");
  param.type = ::atb::infer::LinearParallelParam::LINEAR_ALL_REDUCE;
  l.add("LinearParallel", param, {l.in(0), l.in(1)}, {l.out(0)});
}

}  // namespace atb_core::ascend
