// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <nanobind/nanobind.h>

namespace atb_core {

// Adds the class Model and the functions around it to the extension module.
void bind_models(nanobind::module_& m);

}  // namespace atb_core
