// SPDX-License-Identifier: Apache-2.0
#pragma once

namespace atb_core {

// The version of the interface between atb_core's Python code and the Ascend backend's extension modules: classes,
// methods, arguments and results. Increase it with every change of them, together with INTERFACE_VERSION in
// atb_core/engine/native.py: the modules are built and installed apart from the Python code.
inline constexpr int kInterfaceVersion = 5;

}  // namespace atb_core
