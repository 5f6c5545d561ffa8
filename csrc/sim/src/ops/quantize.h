// SPDX-License-Identifier: Apache-2.0
// Operations on integers of 8 bits: the quantising types of Elewise, and Linear with scales.
#pragma once

#include <atb/atb_infer.h>

#include "rules.h"

namespace atb::sim {

// Rounds to the nearest integer of 8 bits; NaN becomes 0.
int8_t to_int8(float value);

Status make_quantizer(const infer::ElewiseParam& param, RulesPtr& rules);
Status make_quant_linear(const infer::LinearParam& param, RulesPtr& rules);

}  // namespace atb::sim
