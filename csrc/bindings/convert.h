// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <nanobind/nanobind.h>

#include <string>
#include <vector>

#include "graph/arguments.h"
#include "graph/graph.h"

namespace atb_core {

// A graph from Python lists: see Program.__init__ for the form. Throws Error (or TypeError) with the place of
// whatever does not have it.
GraphSpec graph_from_python(const std::vector<std::string>& dims, nanobind::sequence tensors, nanobind::sequence nodes);

// Inputs and outputs from lists of one length: numbers, addresses, shapes.
std::vector<Argument> arguments_from(const std::vector<int>& tensors, const std::vector<uintptr_t>& data,
                                     nanobind::sequence shapes);

}  // namespace atb_core
