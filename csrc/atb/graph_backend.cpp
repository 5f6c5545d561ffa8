// SPDX-License-Identifier: Apache-2.0
#include "atb/graph_backend.h"

#include <utility>

#include "atb/device_program.h"

namespace atb_core::ascend {

std::unique_ptr<GraphProgram> DeviceGraphBackend::build(GraphSpec spec, const std::vector<int>& segments) {
  return std::make_unique<ProgramOf<DeviceProgram>>(weights_, std::move(spec), segments);
}

void DeviceGraphBackend::set_weight(const std::string& name, const TensorView& weight) {
  weights_->set(name, weight.data, weight.dtype, {weight.shape, weight.shape + weight.rank});
}

}  // namespace atb_core::ascend
