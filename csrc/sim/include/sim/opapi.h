// SPDX-License-Identifier: Apache-2.0
// The simulated part of CANN's libopapi, which programs load and search for functions by name.
#pragma once

namespace atb::sim {

// Returns a function with CANN's name and signature as dlsym would; null if the simulator has none. A fault of "dlsym"
// makes it null, too.
void* opapi_symbol(const char* name);

}  // namespace atb::sim
