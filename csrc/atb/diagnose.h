// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <atb/atb_infer.h>

#include <string>
#include <vector>

#include "atb/segment.h"

namespace atb_core::ascend {

// "float16 [4, 64]", with " nz" in that layout.
std::string describe_operand(const ::atb::TensorDesc& desc);

// Why ATB refused a segment: which of its operations it refuses alone, with their tensors. ATB tells only a code for
// the whole. Launches nothing.
std::string diagnose(const Segment& segment, const ::atb::VariantPack& pack, const std::vector<int64_t>& sizes,
                     ::atb::Context* context);

}  // namespace atb_core::ascend
