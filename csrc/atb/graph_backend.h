// SPDX-License-Identifier: Apache-2.0
// Models whose graph C++ builds, on a device.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "atb/weights.h"
#include "models/graph_backend.h"

namespace atb_core::ascend {

// Runs graphs as operations of ATB, one for each segment. Caches lie on the device (Argument::on_device); inputs and
// outputs may lie on either side; values that ATB reads on the host are in Argument::host.
class DeviceGraphBackend : public GraphBackend {
 public:
  explicit DeviceGraphBackend(std::shared_ptr<DeviceWeights> weights) : weights_(std::move(weights)) {}

  std::unique_ptr<GraphProgram> build(GraphSpec spec, const std::vector<int>& segments) override;
  void set_weight(const std::string& name, const TensorView& weight) override;

 private:
  std::shared_ptr<DeviceWeights> weights_;
};

}  // namespace atb_core::ascend
