// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "operation.h"

namespace atb::sim {

// An operation of others within a graph: a subclass of atb::Operation that the simulator did not make. The graph owns it.
class ForeignOperation : public SimOperation {
 public:
  explicit ForeignOperation(Operation* operation) : operation_(operation) {}
  ~ForeignOperation() override {
    if (owned()) delete operation_;
  }

  std::string GetName() const override { return operation_->GetName(); }
  uint32_t GetInputNum() const override { return operation_->GetInputNum(); }
  uint32_t GetOutputNum() const override { return operation_->GetOutputNum(); }
  Status infer(const Descs& in, Descs& out) const override;
  Status schedule(const Descs& in, const Descs& out, const std::vector<const int32_t*>& host,
                  Schedule& schedule) const override;

  Operation* get() const { return operation_; }

 private:
  Operation* operation_;
};

}  // namespace atb::sim
