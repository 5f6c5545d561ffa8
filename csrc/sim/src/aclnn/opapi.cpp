// SPDX-License-Identifier: Apache-2.0
#include <sim/opapi.h>

#include "aclnn/executor.h"
#include "state.h"

namespace atb::sim {

void* opapi_symbol(const char* name) {
  if (fault("dlsym", name)) return nullptr;
  for (const auto find : {&executor_symbol, &weight_quant_symbol, &grouped_matmul_symbol, &moe_symbol}) {
    if (void* found = find(name)) return found;
  }
  return nullptr;
}

}  // namespace atb::sim
