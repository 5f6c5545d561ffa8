// SPDX-License-Identifier: Apache-2.0
// A call of aclnn as an operation of ATB, so that it can be a node of a graph.
#pragma once

#include <atb/atb_infer.h>

#include <cstdint>
#include <string>
#include <vector>

#include "atb/aclnn_library.h"

namespace atb_core::ascend {

// How a call sees an operand of its node. ATB describes matrices as they lie in memory and knows no integers of four
// bits: two of them are one int8.
enum class AclnnView { plain, turned, int4, int4_turned };

// The tensors and numbers of a call, by the places of its parameters; absent ones are null.
class AclnnTensors {
 public:
  explicit AclnnTensors(size_t places) : tensors_(places), lists_(places) {}
  ~AclnnTensors();
  AclnnTensors(const AclnnTensors&) = delete;
  AclnnTensors& operator=(const AclnnTensors&) = delete;

  // Makes the tensor of a parameter, or a list of one tensor.
  void add(size_t place, bool list, AclnnView view, const ::atb::Tensor& tensor);
  aclTensor* tensor(size_t place) const { return tensors_[place]; }
  aclTensorList* list(size_t place) const { return lists_[place]; }

 private:
  std::vector<aclTensor*> tensors_;
  std::vector<aclTensorList*> lists_;
};

struct AclnnParam;

// One call: its name, and what the operation needs to know of it.
struct AclnnCall {
  const char* name;  // "aclnnGroupedMatmulV4"
  size_t places;     // parameters that are tensors or lists
  // Fills the outputs' descriptions.
  ::atb::Status (*infer)(const AclnnParam& param, const ::atb::SVector<::atb::TensorDesc>& in,
                         ::atb::SVector<::atb::TensorDesc>& out);
  // Calls the first phase, which checks everything.
  AclnnStatus (*plan)(void* function, const AclnnTensors& tensors, const AclnnParam& param, uint64_t* workspace,
                      aclOpExecutor** executor);
};

// An operand of the node and the parameter that it is.
struct AclnnOperand {
  size_t place;
  AclnnView view = AclnnView::plain;
  bool list = false;
};

struct AclnnParam {
  const AclnnCall* call;
  std::vector<AclnnOperand> inputs, outputs;  // in the order of the node's
  std::vector<int64_t> numbers;               // further parameters, by the call's own order
};

class AclnnOperation final : public ::atb::Operation {
 public:
  explicit AclnnOperation(AclnnParam param) : param_(std::move(param)) {}

  std::string GetName() const override { return param_.call->name; }
  uint32_t GetInputNum() const override { return static_cast<uint32_t>(param_.inputs.size()); }
  uint32_t GetOutputNum() const override { return static_cast<uint32_t>(param_.outputs.size()); }
  ::atb::Status InferShape(const ::atb::SVector<::atb::TensorDesc>& in,
                           ::atb::SVector<::atb::TensorDesc>& out) const override;
  // Asks the call for its workspace. Addresses are not needed: within a graph they are known to Execute only.
  ::atb::Status Setup(const ::atb::VariantPack& pack, uint64_t& workspace, ::atb::Context* context) override;
  ::atb::Status Execute(const ::atb::VariantPack& pack, uint8_t* workspace, uint64_t workspace_size,
                        ::atb::Context* context) override;

  // Returns what aclnn reported last, "" if nothing failed.
  const std::string& last_error() const { return last_error_; }

 private:
  // Calls the first phase on tensors that it makes; last_error() tells a failure.
  ::atb::Status plan(const ::atb::VariantPack& pack, AclnnTensors& tensors, uint64_t& workspace,
                     aclOpExecutor*& executor);
  ::atb::Status fail(const char* phase, AclnnStatus status);

  const AclnnParam param_;
  // The descriptions of the last Setup that succeeded, and its answer: equal layers ask for the same.
  std::vector<::atb::TensorDesc> known_;
  uint64_t known_workspace_ = 0;
  std::string last_error_;
};

// Destroys an operation of ATB or of this backend.
void destroy_operation(::atb::Operation* operation);

}  // namespace atb_core::ascend
