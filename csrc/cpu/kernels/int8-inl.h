// SPDX-License-Identifier: Apache-2.0
// What rounding to integers of 8 bits has in common, written once on F16. Include after the level's vec_*.h.
#pragma once

#include <limits>

#include "cpu/kernels/vec_types.h"

namespace atb_core::cpu::ATB_CPU_LEVEL {
namespace {

// The largest magnitude of what is added; NaN if that is among it.
class Largest {
 public:
  void add(F16 x) { most_ = max_bits(abs(x), most_); }
  float get() const {
    return to_bits(is_nan(most_)) != 0 ? std::numeric_limits<float>::quiet_NaN() : horizontal_max(most_);
  }

 private:
  F16 most_ = zero();
};

// Rounds to nearest even, within -128 to 127; NaN becomes 0.
inline void store_int8(int8_t* p, F16 x) {
  store(p, min(set1(127.0F), max(set1(-128.0F), select(is_nan(x), zero(), x))));
}

}  // namespace
}  // namespace atb_core::cpu::ATB_CPU_LEVEL
