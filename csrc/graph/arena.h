// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <vector>

namespace atb_core {

// One value that needs memory from step `first` to step `last` (both included).
struct Lifetime {
  size_t bytes;
  int first, last;
};

struct Placement {
  std::vector<size_t> offsets;  // one for each lifetime, 64-byte aligned
  size_t bytes = 0;             // the size of the arena
};

// Places values so that no two that live at the same time overlap: the biggest first, each into the
// tightest gap between those it meets.
Placement place(const std::vector<Lifetime>& values);

}  // namespace atb_core
