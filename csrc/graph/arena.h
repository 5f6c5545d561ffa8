// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <vector>

namespace atb_core {

// A value that needs memory from step `first` to step `last`, both included.
struct Lifetime {
  size_t bytes;
  int first, last;
};

struct Placement {
  std::vector<size_t> offsets;  // one for each lifetime, 64-byte aligned
  size_t bytes = 0;             // the size of the arena
};

// Places values so that values that live at the same time do not overlap: the largest first, each into the tightest
// gap.
Placement place(const std::vector<Lifetime>& values);

}  // namespace atb_core
