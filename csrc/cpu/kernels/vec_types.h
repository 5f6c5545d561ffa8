// SPDX-License-Identifier: Apache-2.0
// Storage types of 16-bit floats. No functions here: the files of all levels include this, and a function emitted
// by one of them with its instructions could be linked into another.
#pragma once

#include <cstdint>

namespace atb_core::cpu {

struct Bf16 {
  uint16_t bits;
};
struct Half {
  uint16_t bits;
};

}  // namespace atb_core::cpu
