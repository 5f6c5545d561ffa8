// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <vector>

#include "cpu/engine/runtime.h"

namespace atb_core {

// Measures how fast the runtime's threads read memory: the seconds of each of `repeats` passes over `bytes`, which
// should be several times the caches. Each thread reads one contiguous part in ascending order, as fast as it can, so
// that no step that reads as many bytes can be much faster.
std::vector<double> read_stream(Runtime& runtime, size_t bytes, int repeats);

}  // namespace atb_core
