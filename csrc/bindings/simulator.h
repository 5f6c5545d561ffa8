// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <nanobind/nanobind.h>

namespace atb_core {

// Adds the simulator's controls as the submodule `sim`; does nothing in the module for real devices.
void bind_simulator(nanobind::module_& m);

}  // namespace atb_core
