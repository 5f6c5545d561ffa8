// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <memory>
#include <vector>

#include "foreign_operation.h"
#include "operation.h"

namespace atb::sim {

// A graph of operations. It owns the operations of its nodes.
class GraphOperation : public SimOperation {
 public:
  // Checks ATB's rules for graphs. On failure the caller keeps the operations of the nodes.
  static Status make(const GraphParam& param, std::unique_ptr<GraphOperation>& made);
  ~GraphOperation() override;

  std::string GetName() const override { return param_.name; }
  uint32_t GetInputNum() const override { return param_.inTensorNum; }
  uint32_t GetOutputNum() const override { return param_.outTensorNum; }
  Status infer(const Descs& in, Descs& out) const override;
  Status schedule(const Descs& in, const Descs& out, const std::vector<const int32_t*>& host,
                  Schedule& schedule) const override;

 private:
  explicit GraphOperation(const GraphParam& param) : param_(param) {}

  // The descriptions of a node's tensors, after the reshape functions.
  struct Step {
    Descs in, out;
  };
  uint32_t count() const { return param_.inTensorNum + param_.outTensorNum + param_.internalTensorNum; }
  uint32_t first_internal() const { return param_.inTensorNum + param_.outTensorNum; }
  SimOperation& operation(size_t node) const { return *operations_[node]; }
  Status bind_operations();
  Status walk(const Descs& in, std::vector<Step>& steps, Descs& values) const;
  Status reshape(size_t node, Descs& in) const;
  std::vector<uint64_t> place_internals(const Descs& values, uint64_t& bytes) const;
  Place place_of(uint32_t id, const std::vector<uint64_t>& offsets, const TensorDesc& desc) const;

  GraphParam param_;
  std::vector<SimOperation*> operations_;
  std::vector<std::unique_ptr<ForeignOperation>> foreign_;  // those of `operations_` that are of others
};

}  // namespace atb::sim
