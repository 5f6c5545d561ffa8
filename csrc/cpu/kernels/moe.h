// SPDX-License-Identifier: Apache-2.0
// Mixture of experts without arithmetic: grouping rows by expert. (The kernels with arithmetic are in kernels.h, the
// product of groups in linear.h.)
#pragma once

#include "atb_core/types.h"
#include "cpu/kernels/kernels.h"
#include "cpu/worker.h"

namespace atb_core::cpu {

// x [T, h], experts i32 [T, k] -> rows [T*k, h] of x in the order of their experts (and of t, j for one expert),
// places i32 [T*k]: where choice j of token t went, ends i64 [E]: where each expert's rows end. An expert that does
// not exist is reported to worker.error, and nothing is written.
struct InitRoutingArgs {
  TensorView x, experts, rows, places, ends;
};
ScratchSize init_routing_scratch(const InitRoutingArgs& args);
void init_routing(const InitRoutingArgs& args, const Worker& worker);

}  // namespace atb_core::cpu
