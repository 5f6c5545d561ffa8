// SPDX-License-Identifier: Apache-2.0
#include "atb/aclnn_operation.h"

#include <algorithm>
#include <utility>

#include "atb/status.h"

namespace atb_core::ascend {
namespace {

bool same(const ::atb::TensorDesc& a, const ::atb::TensorDesc& b) {
  return a.dtype == b.dtype && a.format == b.format && a.shape.dimNum == b.shape.dimNum &&
         std::equal(a.shape.dims, a.shape.dims + a.shape.dimNum, b.shape.dims);
}

// Frees an executor that no second phase will: one that is repeatable belongs to the caller.
AclnnStatus discard(aclOpExecutor* executor) {
  const AclnnStatus status = aclnn_basics().aclSetAclOpExecutorRepeatable(executor);
  return status == 0 ? aclnn_basics().aclDestroyAclOpExecutor(executor) : status;
}

void append_descs(std::vector<::atb::TensorDesc>& descs, const ::atb::SVector<::atb::Tensor>& tensors) {
  for (size_t i = 0; i < tensors.size(); ++i) descs.push_back(tensors.at(i).desc);
}

}  // namespace

AclnnTensors::~AclnnTensors() {
  for (const aclTensorList* list : lists_) {
    if (list != nullptr) aclnn_basics().aclDestroyTensorList(list);
  }
  for (const aclTensor* tensor : tensors_) {
    if (tensor != nullptr) aclnn_basics().aclDestroyTensor(tensor);
  }
}

void AclnnTensors::add(size_t place, bool list, AclnnView view, const ::atb::Tensor& tensor) {
  const ::atb::Dims& given = tensor.desc.shape;
  std::vector<int64_t> stored(given.dims, given.dims + given.dimNum);
  const bool int4 = view == AclnnView::int4 || view == AclnnView::int4_turned;
  if (int4) stored.back() *= 2;
  std::vector<int64_t> seen = stored, strides(stored.size(), 1);
  for (size_t axis = stored.size() - 1; axis-- > 0;) strides[axis] = strides[axis + 1] * stored[axis + 1];
  if (view == AclnnView::turned || view == AclnnView::int4_turned) {
    std::swap(seen[seen.size() - 2], seen.back());
    std::swap(strides[strides.size() - 2], strides.back());
  }
  aclTensor* made =
      aclnn_basics().aclCreateTensor(seen.data(), seen.size(), int4 ? ACL_INT4 : tensor.desc.dtype, strides.data(), 0,
                                     tensor.desc.format, stored.data(), stored.size(), tensor.deviceData);
  if (list) {
    lists_[place] = aclnn_basics().aclCreateTensorList(&made, 1);
  } else {
    tensors_[place] = made;
  }
}

::atb::Status AclnnOperation::InferShape(const ::atb::SVector<::atb::TensorDesc>& in,
                                         ::atb::SVector<::atb::TensorDesc>& out) const {
  if (in.size() != param_.inputs.size() || out.size() != param_.outputs.size()) {
    return ::atb::ERROR_INVALID_IN_TENSOR_NUM;
  }
  return param_.call->infer(param_, in, out);
}

::atb::Status AclnnOperation::plan(const ::atb::VariantPack& pack, AclnnTensors& tensors, uint64_t& workspace,
                                   aclOpExecutor*& executor) {
  last_error_.clear();
  const auto add = [&](const std::vector<AclnnOperand>& operands, const ::atb::SVector<::atb::Tensor>& given) {
    for (size_t i = 0; i < operands.size(); ++i) {
      tensors.add(operands[i].place, operands[i].list, operands[i].view, given.at(i));
    }
  };
  add(param_.inputs, pack.inTensors);
  add(param_.outputs, pack.outTensors);
  const std::string first = std::string(param_.call->name) + "GetWorkspaceSize";
  const AclnnStatus status = param_.call->plan(aclnn_symbol(first.c_str()), tensors, param_, &workspace, &executor);
  return status == 0 ? ::atb::NO_ERROR : fail("GetWorkspaceSize", status);
}

::atb::Status AclnnOperation::fail(const char* phase, AclnnStatus status) {
  last_error_ = std::string(param_.call->name) + phase + " reports " + acl_status_text(status);
  return ::atb::ERROR_CANN_ERROR;
}

::atb::Status AclnnOperation::Setup(const ::atb::VariantPack& pack, uint64_t& workspace, ::atb::Context* context) {
  if (context == nullptr) return ::atb::ERROR_INVALID_CONTEXT_ADDR;
  if (pack.inTensors.size() != param_.inputs.size() || pack.outTensors.size() != param_.outputs.size()) {
    return ::atb::ERROR_INVALID_IN_TENSOR_NUM;
  }
  std::vector<::atb::TensorDesc> descs;
  append_descs(descs, pack.inTensors);
  append_descs(descs, pack.outTensors);
  if (!known_.empty() && std::equal(descs.begin(), descs.end(), known_.begin(), known_.end(), same)) {
    workspace = known_workspace_;
    return ::atb::NO_ERROR;
  }
  known_.clear();
  AclnnTensors tensors(param_.call->places);
  aclOpExecutor* executor = nullptr;
  uint64_t wanted = 0;
  const ::atb::Status planned = plan(pack, tensors, wanted, executor);
  if (planned != ::atb::NO_ERROR) return planned;
  // Execute makes an executor of its own, which has the addresses.
  const AclnnStatus discarded = discard(executor);
  if (discarded != 0) return fail("GetWorkspaceSize", discarded);
  workspace = known_workspace_ = wanted;
  known_ = std::move(descs);
  return ::atb::NO_ERROR;
}

::atb::Status AclnnOperation::Execute(const ::atb::VariantPack& pack, uint8_t* workspace, uint64_t workspace_size,
                                      ::atb::Context* context) {
  if (context == nullptr || context->GetExecuteStream() == nullptr) return ::atb::ERROR_INVALID_STREAM;
  AclnnTensors tensors(param_.call->places);
  aclOpExecutor* executor = nullptr;
  uint64_t wanted = 0;
  const ::atb::Status planned = plan(pack, tensors, wanted, executor);
  if (planned != ::atb::NO_ERROR) return planned;
  if (wanted > workspace_size) {
    discard(executor);
    return ::atb::ERROR_INVALID_WORKSPACE_SIZE;
  }
  using Run = AclnnStatus (*)(void*, uint64_t, aclOpExecutor*, aclrtStream);
  const AclnnStatus status =
      aclnn_function<Run>(param_.call->name)(workspace, wanted, executor, context->GetExecuteStream());
  return status == 0 ? ::atb::NO_ERROR : fail("", status);
}

void destroy_operation(::atb::Operation* operation) {
  if (auto* own = dynamic_cast<AclnnOperation*>(operation)) {
    delete own;
  } else {
    ::atb::DestroyOperation(operation);
  }
}

}  // namespace atb_core::ascend
