// SPDX-License-Identifier: Apache-2.0
// The calls of aclnn that ops become, with the places of their parameters. Sources are the public pages of each call in
// CANN's operator library.
#pragma once

#include "atb/aclnn_operation.h"

namespace atb_core::ascend {

// x [m, k] times (weight + offset) * scale, plus bias; numbers: the size of a group, 0 for one scale of each column.
namespace weight_quant {
enum Place : size_t { x, weight, scale, offset, quant_scale, quant_offset, bias, y, places };
extern const AclnnCall kCall;
}  // namespace weight_quant

// The k largest of x [tokens, experts] in each row and their softmax; numbers: k, and 1 for a softmax among those.
namespace moe_gating {
enum Place : size_t { x, finished, weights, experts, softmax, places };
extern const AclnnCall kCall;
}  // namespace moe_gating

// Rows of x for each choice [tokens, k], by expert; numbers: how many experts there are.
namespace moe_routing {
enum Place : size_t { x, experts, rows, places_of_rows, ends, before, places };
extern const AclnnCall kCall;
}  // namespace moe_routing

// x [m, k] in groups of rows, each times its own of the weights [groups, k, n].
namespace grouped_matmul {
enum Place : size_t {
  x,
  weight,
  bias,
  scale,
  offset,
  antiquant_scale,
  antiquant_offset,
  token_scale,
  group_list,
  activation_input,
  activation_scale,
  activation_offset,
  y,
  activation_output,
  dynamic_scale,
  places
};
extern const AclnnCall kCall;
}  // namespace grouped_matmul

// The sum of the rows of each token [tokens, k], by weights.
namespace moe_unpermute {
enum Place : size_t { rows, indices, probs, y, places };
extern const AclnnCall kCall;
}  // namespace moe_unpermute

}  // namespace atb_core::ascend
