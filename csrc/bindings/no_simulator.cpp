// SPDX-License-Identifier: Apache-2.0
// The module for real devices has no controls of the simulator.
#include "bindings/simulator.h"

namespace atb_core {

void bind_simulator(nanobind::module_&) {}

}  // namespace atb_core
