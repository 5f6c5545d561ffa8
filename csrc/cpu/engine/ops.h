// SPDX-License-Identifier: Apache-2.0
// Registers the CPU engine's ops, one function for each ops_*.cpp. A bind function checks shapes and types completely,
// so that kernels need not.
#pragma once

#include <functional>
#include <map>
#include <string>

#include "cpu/engine/op.h"

namespace atb_core {

using CpuOps = std::map<std::string, CpuOp, std::less<>>;

namespace cpu {

void add_linear_ops(CpuOps& ops);
void add_lora_ops(CpuOps& ops);
void add_vector_ops(CpuOps& ops);
void add_attention_ops(CpuOps& ops);
void add_comm_ops(CpuOps& ops);
void add_gather_ops(CpuOps& ops);
void add_movement_ops(CpuOps& ops);
void add_moe_ops(CpuOps& ops);
void add_quant_ops(CpuOps& ops);
void add_sort_ops(CpuOps& ops);

}  // namespace cpu
}  // namespace atb_core
