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

// `view` of ops whose output is their input under another shape, where both have memory of their own.
std::optional<std::vector<size_t>> whole_view(const Binding& binding);

// `weight_use` of ops whose input 1 is a matrix, or a stack of them, that `transpose_b` says is stored [n, k].
WeightUse matrix_use(const Attributes& attributes, int index);

// Copies this thread's share of the bytes of one tensor to another.
void copy_bytes(const TensorView& from, const TensorView& to, const Worker& worker);

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
