// SPDX-License-Identifier: Apache-2.0
#include "cpu/engine/graph_backend.h"

#include <utility>

#include "cpu/engine/program.h"

namespace atb_core {

std::unique_ptr<GraphProgram> CpuGraphBackend::build(GraphSpec spec, const std::vector<int>&) {
  return std::make_unique<ProgramOf<Program>>(store_->runtime(), store_, std::move(spec));
}

void CpuGraphBackend::set_weight(const std::string& name, const TensorView& weight) {
  store_->set(name, weight.data, weight.dtype, {weight.shape, weight.shape + weight.rank});
}

}  // namespace atb_core
