// SPDX-License-Identifier: Apache-2.0
// Declares the lowering functions by family of ops, and their helpers. An op's inputs and outputs have the numbers of
// its definition; the graph has checked counts of inputs and required attributes.
#pragma once

#include <atb/atb_infer.h>

#include <initializer_list>
#include <string>
#include <vector>

#include "atb/lowering.h"

namespace atb_core::ascend {

// lower_linear.cpp
void lower_linear(Lowering& l);
void lower_batch_matmul(Lowering& l);
void lower_quant_per_channel(Lowering& l);
void lower_dynamic_quant(Lowering& l);
void lower_quant_linear(Lowering& l);
void lower_weight_quant(Lowering& l, const QuantFormat& format);
// lower_moe.cpp
void lower_moe_topk_softmax(Lowering& l);
void lower_moe_init_routing(Lowering& l);
void lower_grouped_matmul(Lowering& l);
void lower_moe_token_unpermute(Lowering& l);
// lower_norm.cpp
void lower_rms_norm(Lowering& l);
void lower_add_rms_norm(Lowering& l);
void lower_rms_norm_quant(Lowering& l);
void lower_layer_norm(Lowering& l);
// lower_attention.cpp
void lower_rope(Lowering& l);
void lower_self_attention(Lowering& l);
void lower_paged_attention(Lowering& l);
void lower_reshape_and_cache(Lowering& l);
// lower_elewise.cpp
void lower_activation(Lowering& l);
void lower_elewise(Lowering& l);
void lower_cast(Lowering& l);
// lower_movement.cpp
void lower_gather(Lowering& l);
void lower_concat(Lowering& l);
void lower_split(Lowering& l);
void lower_slice(Lowering& l);
void lower_transpose(Lowering& l);
void lower_repeat(Lowering& l);
// lower_comm.cpp
void lower_all_reduce(Lowering& l);
void lower_all_gather(Lowering& l);
void lower_linear_parallel(Lowering& l);
// lower_reduction.cpp
void lower_softmax(Lowering& l);
void lower_sort(Lowering& l);
void lower_reduce(Lowering& l);

// Returns "float16, bfloat16 or float32".
std::string type_list(const std::vector<DataType>& types);

bool one_of(DataType type, std::initializer_list<DataType> types);

// Throws Error unless the input has this type; `what` names the input.
void require_type(const Lowering& l, int input, const char* what, DataType type);
// Throws Error unless the output has the type of input 0.
void require_result_type(const Lowering& l, int output = 0);

// Returns a dimension of a tensor of `rank` dimensions in the range 0..rank-1.
int axis_of(const Lowering& l, int64_t axis, int rank);

// On devices with FRACTAL_NZ, requires the input in that layout, so the tensor has to come from outside of the graph.
void require_nz(Lowering& l, int input, const char* what);

// Adds a cast from one value to another; `type` is the target's.
void add_cast(Lowering& l, int from, int to, DataType type);
// Adds a slice of the input; a size of -1 extends to the end.
void add_slice(Lowering& l, const std::vector<int64_t>& offsets, const std::vector<int64_t>& sizes, int to);
// Returns the types that ATB's Slice supports.
bool slice_takes(DataType type);

}  // namespace atb_core::ascend
