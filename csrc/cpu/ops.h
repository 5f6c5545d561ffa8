// SPDX-License-Identifier: Apache-2.0
// The glue from a node to its kernel, one function for each ops_*.cpp. A bind function checks everything
// about shapes and types, so that kernels need not.
#pragma once

#include <vector>

#include "graph/op.h"

namespace atb_core::cpu {

void add_linear_ops(std::vector<OpDef>& ops);
void add_vector_ops(std::vector<OpDef>& ops);
void add_attention_ops(std::vector<OpDef>& ops);
void add_comm_ops(std::vector<OpDef>& ops);
void add_gather_ops(std::vector<OpDef>& ops);
void add_movement_ops(std::vector<OpDef>& ops);
void add_moe_ops(std::vector<OpDef>& ops);
void add_sort_ops(std::vector<OpDef>& ops);

}  // namespace atb_core::cpu
