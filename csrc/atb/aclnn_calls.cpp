// SPDX-License-Identifier: Apache-2.0
#include "atb/aclnn_calls.h"

namespace atb_core::ascend {
namespace {

using Descs = ::atb::SVector<::atb::TensorDesc>;

::atb::TensorDesc described(aclDataType dtype, std::initializer_list<int64_t> sizes) {
  ::atb::TensorDesc desc;
  desc.dtype = dtype;
  desc.format = ACL_FORMAT_ND;
  for (int64_t size : sizes) desc.shape.dims[desc.shape.dimNum++] = size;
  return desc;
}

int64_t last(const ::atb::TensorDesc& desc) { return desc.shape.dims[desc.shape.dimNum - 1]; }

}  // namespace

namespace weight_quant {
namespace {

::atb::Status infer(const AclnnParam&, const Descs& in, Descs& out) {
  // Scales are [n] or [groups, n].
  out.at(0) = described(in.at(0).dtype, {in.at(0).shape.dims[0], last(in.at(2))});
  return ::atb::NO_ERROR;
}

AclnnStatus plan(void* function, const AclnnTensors& t, const AclnnParam& param, uint64_t* workspace,
                 aclOpExecutor** executor) {
  using First =
      AclnnStatus (*)(const aclTensor*, const aclTensor*, const aclTensor*, const aclTensor*, const aclTensor*,
                      const aclTensor*, const aclTensor*, int, const aclTensor*, uint64_t*, aclOpExecutor**);
  return reinterpret_cast<First>(function)(t.tensor(x), t.tensor(weight), t.tensor(scale), t.tensor(offset),
                                           t.tensor(quant_scale), t.tensor(quant_offset), t.tensor(bias),
                                           static_cast<int>(param.numbers[0]), t.tensor(y), workspace, executor);
}

}  // namespace

const AclnnCall kCall = {"aclnnWeightQuantBatchMatmulV2", places, &infer, &plan};

}  // namespace weight_quant

namespace moe_gating {
namespace {

::atb::Status infer(const AclnnParam& param, const Descs& in, Descs& out) {
  const int64_t tokens = in.at(0).shape.dims[0], count = param.numbers[0];
  out.at(0) = described(in.at(0).dtype, {tokens, count});
  out.at(1) = described(ACL_INT32, {tokens, count});
  return ::atb::NO_ERROR;
}

AclnnStatus plan(void* function, const AclnnTensors& t, const AclnnParam& param, uint64_t* workspace,
                 aclOpExecutor** executor) {
  using First = AclnnStatus (*)(const aclTensor*, const aclTensor*, int64_t, int64_t, bool, const aclTensor*,
                                const aclTensor*, const aclTensor*, uint64_t*, aclOpExecutor**);
  return reinterpret_cast<First>(function)(t.tensor(x), t.tensor(finished), param.numbers[0], param.numbers[1], false,
                                           t.tensor(weights), t.tensor(experts), t.tensor(softmax), workspace,
                                           executor);
}

}  // namespace

const AclnnCall kCall = {"aclnnMoeGatingTopKSoftmaxV2", places, &infer, &plan};

}  // namespace moe_gating

namespace moe_routing {
namespace {

::atb::Status infer(const AclnnParam& param, const Descs& in, Descs& out) {
  const ::atb::Dims &given = in.at(0).shape, &chosen = in.at(1).shape;
  const int64_t count = chosen.dims[0] * chosen.dims[1];
  out.at(0) = described(in.at(0).dtype, {count, given.dims[1]});
  out.at(1) = described(ACL_INT32, {count});
  out.at(2) = described(ACL_INT32, {param.numbers[0]});
  return ::atb::NO_ERROR;
}

AclnnStatus plan(void* function, const AclnnTensors& t, const AclnnParam& param, uint64_t* workspace,
                 aclOpExecutor** executor) {
  using First = AclnnStatus (*)(const aclTensor*, const aclTensor*, int64_t, int64_t, int64_t, int64_t, int64_t, bool,
                                const aclTensor*, const aclTensor*, const aclTensor*, const aclTensor*, uint64_t*,
                                aclOpExecutor**);
  constexpr int64_t kAllRows = 0, kNoCapacity = 0, kNothingDropped = 0, kCumulative = 1;
  return reinterpret_cast<First>(function)(
      t.tensor(x), t.tensor(experts), kAllRows, kNoCapacity, param.numbers[0], kNothingDropped, kCumulative, false,
      t.tensor(rows), t.tensor(places_of_rows), t.tensor(ends), t.tensor(before), workspace, executor);
}

}  // namespace

const AclnnCall kCall = {"aclnnMoeInitRoutingV2", places, &infer, &plan};

}  // namespace moe_routing

namespace grouped_matmul {
namespace {

::atb::Status infer(const AclnnParam& param, const Descs& in, Descs& out) {
  const int axis = param.inputs[1].view == AclnnView::turned ? 1 : 2;
  out.at(0) = described(in.at(0).dtype, {in.at(0).shape.dims[0], in.at(1).shape.dims[axis]});
  return ::atb::NO_ERROR;
}

AclnnStatus plan(void* function, const AclnnTensors& t, const AclnnParam&, uint64_t* workspace,
                 aclOpExecutor** executor) {
  using List = const aclTensorList*;
  using First = AclnnStatus (*)(List, List, List, List, List, List, List, List, const aclTensor*, List, List, List,
                                int64_t, int64_t, int64_t, int64_t, aclTensorList*, aclTensorList*, aclTensorList*,
                                uint64_t*, aclOpExecutor**);
  constexpr int64_t kOneOutput = 3, kGroupsOfRows = 0, kCumulative = 0, kNoActivation = 0;
  return reinterpret_cast<First>(function)(
      t.list(x), t.list(weight), t.list(bias), t.list(scale), t.list(offset), t.list(antiquant_scale),
      t.list(antiquant_offset), t.list(token_scale), t.tensor(group_list), t.list(activation_input),
      t.list(activation_scale), t.list(activation_offset), kOneOutput, kGroupsOfRows, kCumulative, kNoActivation,
      t.list(y), t.list(activation_output), t.list(dynamic_scale), workspace, executor);
}

}  // namespace

const AclnnCall kCall = {"aclnnGroupedMatmulV4", places, &infer, &plan};

}  // namespace grouped_matmul

namespace moe_unpermute {
namespace {

::atb::Status infer(const AclnnParam&, const Descs& in, Descs& out) {
  out.at(0) = described(in.at(0).dtype, {in.at(2).shape.dims[0], in.at(0).shape.dims[1]});
  return ::atb::NO_ERROR;
}

AclnnStatus plan(void* function, const AclnnTensors& t, const AclnnParam&, uint64_t* workspace,
                 aclOpExecutor** executor) {
  using First = AclnnStatus (*)(const aclTensor*, const aclTensor*, const aclTensor*, bool, const void*, aclTensor*,
                                uint64_t*, aclOpExecutor**);
  return reinterpret_cast<First>(function)(t.tensor(rows), t.tensor(indices), t.tensor(probs), false, nullptr,
                                           t.tensor(y), workspace, executor);
}

}  // namespace

const AclnnCall kCall = {"aclnnMoeTokenUnpermute", places, &infer, &plan};

}  // namespace moe_unpermute
}  // namespace atb_core::ascend
