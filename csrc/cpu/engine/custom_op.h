// SPDX-License-Identifier: Apache-2.0
// Custom ops: their kernels come from outside of the engine, by the C ABI of atb_core/kernel_abi.h.
#pragma once

#include <string>
#include <vector>

#include "atb_core/kernel_abi.h"

namespace atb_core {

struct CustomKernel {
  std::string op;
  uint32_t abi_version;
  atb_kernel_function check;  // may be null
  atb_kernel_function run;
  std::vector<int> writes;  // inputs that are written
};

// Adds `op` to the engine for the rest of the process; the functions must stay loaded as long. Throws Error if the
// kernel is written for another version of the ABI or has no `run`, or if the name is taken.
void register_kernel(const CustomKernel& kernel);

}  // namespace atb_core
