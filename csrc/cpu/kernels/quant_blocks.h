// SPDX-License-Identifier: Apache-2.0
// The rows of quantised formats, read into one form, and the quantisation of floats.
#pragma once

#include <cstddef>
#include <cstdint>

#include "cpu/kernels/quant.h"

namespace atb_core::cpu {

// One step of a row: what quant.h calls q, s, m (or d, e of a step of 256), c and b. Zeros after the end of a row.
struct QuantStep {
  uint8_t q[256] = {};
  uint16_t half_scale[8] = {}, half_min[8] = {};
  uint8_t scale[16] = {}, min[8] = {};
};

float half_to_float(uint16_t half);
// Rounds to nearest even; too large a value gives infinity.
uint16_t float_to_half(float value);

// Reads the step at element `first` of a row of k elements.
void read_blocks(QuantFormat format, const std::byte* row, int64_t first, int64_t k, QuantStep& out);

// Makes the format int4 of `count` (up to 64) values, whose array is filled up with zeros: q = round((x - m) / s), with
// s and m of each group of 32 rounded to f16 first. Returns false if s or m is not finite.
bool quantize_groups(const float (&x)[64], int64_t count, QuantStep& out);

}  // namespace atb_core::cpu
