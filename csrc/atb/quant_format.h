// SPDX-License-Identifier: Apache-2.0
// Matrices that are stored as integers with scales: (integer + offset) * scale.
#pragma once

#include <cstdint>
#include <string>

#include "atb/device_table.h"
#include "atb_core/types.h"

namespace atb_core::ascend {

struct QuantFormat {
  int bits = 0;          // 8 or 4; 0: not stored so
  int64_t group = 0;     // elements of a row that share a scale; 0: all of them
  bool offsets = false;  // there is an offset for each scale
  bool operator==(const QuantFormat&) const = default;
};

// Returns why products of such a matrix [n, k] cannot run on the device, "" if they can. `dtype` is that of the
// network's weight, in which activations, scales and offsets are.
std::string quant_problem(const DeviceInfo& device, DataType dtype, int64_t n, int64_t k, const QuantFormat& format);

}  // namespace atb_core::ascend
