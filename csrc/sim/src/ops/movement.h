// SPDX-License-Identifier: Apache-2.0
// Copies between strided boxes of elements of any size.
#pragma once

#include "ops/shapes.h"

namespace atb::sim {

// Strides in elements of a dense tensor.
Sizes dense(const Sizes& shape);

// A tensor's memory as a box: its first element and the step of each axis.
struct Box {
  std::byte* data = nullptr;
  int64_t first = 0;
  Sizes strides;
};

// to[i] = from[i] for every index i of the box; the last axis is copied at once where both sides are dense in it.
void copy_box(const Sizes& shape, const Box& from, const Box& to, size_t bytes);

}  // namespace atb::sim
