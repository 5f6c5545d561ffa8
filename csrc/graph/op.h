// SPDX-License-Identifier: Apache-2.0
// The signatures of ops: what a graph checks of a node, whichever backend runs it.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "graph/attributes.h"

namespace atb_core {

inline constexpr int kAnyNumber = 1 << 20;

struct Arity {
  int least, most;
};

struct OpSignature {
  std::string name;
  Arity inputs, outputs;
  std::vector<AttributeSpec> attributes = {};
  // Indices of the inputs that a node writes.
  std::vector<int> writes = {};
  // The output is the memory of input 0 by definition: a node that writes one writes the other.
  bool always_view = false;
  // A node may have any attributes; `attributes` is not used.
  bool any_attributes = false;
};

// Returns the signature of an op, null if there is none of this name. The pointer stays valid.
const OpSignature* find_op(std::string_view name);

// Adds the signature of a custom op for the rest of the process. Throws Error if the name is taken. Thread-safe.
void add_op(OpSignature signature);

// Returns the names of all ops, sorted.
std::vector<std::string> op_names();

}  // namespace atb_core
