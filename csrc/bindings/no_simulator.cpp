// SPDX-License-Identifier: Apache-2.0
// Part of the module for real devices.
#include "bindings/simulator.h"

namespace atb_core {

void bind_simulator(nanobind::module_&) {}

}  // namespace atb_core
