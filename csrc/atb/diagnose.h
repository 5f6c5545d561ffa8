// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <atb/atb_infer.h>

#include <string>
#include <vector>

#include "atb/segment.h"

namespace atb_core::ascend {

// Returns "float16 [4, 64]", followed by " nz" for that layout.
std::string describe_operand(const ::atb::TensorDesc& desc);

// Returns why ATB refused a segment: the operation that ATB refuses alone, with its tensors. ATB reports only a code
// for the whole segment. Launches nothing.
std::string diagnose(const Segment& segment, const ::atb::VariantPack& pack, const std::vector<int64_t>& sizes,
                     ::atb::Context* context);

}  // namespace atb_core::ascend
