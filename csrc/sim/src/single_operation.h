// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <memory>

#include "operation.h"

namespace atb::sim {

// A single operation of ATB, by its rules.
class SingleOperation : public SimOperation {
 public:
  explicit SingleOperation(std::unique_ptr<OpRules> rules) : rules_(std::move(rules)) {}

  std::string GetName() const override { return rules_->name(); }
  uint32_t GetInputNum() const override { return rules_->inputs(); }
  uint32_t GetOutputNum() const override { return rules_->outputs(); }
  Status infer(const Descs& in, Descs& out) const override { return rules_->infer(in, out); }
  Status schedule(const Descs& in, const Descs& out, const std::vector<const int32_t*>& host,
                  Schedule& schedule) const override;
  std::vector<std::pair<uint32_t, uint32_t>> in_place() const override { return rules_->in_place(); }

 private:
  std::unique_ptr<OpRules> rules_;
};

}  // namespace atb::sim
