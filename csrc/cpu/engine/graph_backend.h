// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "cpu/engine/weight_store.h"
#include "models/graph_backend.h"

namespace atb_core {

// Runs the graphs of models on the CPU engine, which ignores segments.
class CpuGraphBackend : public GraphBackend {
 public:
  explicit CpuGraphBackend(std::shared_ptr<WeightStore> store) : store_(std::move(store)) {}

  std::unique_ptr<GraphProgram> build(GraphSpec spec, const std::vector<int>& segments) override;
  void set_weight(const std::string& name, const TensorView& weight) override;

 private:
  std::shared_ptr<WeightStore> store_;
};

}  // namespace atb_core
