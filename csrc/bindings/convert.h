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

// Text that foreign code may have written: bytes that are no UTF-8 are spelled out.
nanobind::object text_from(const std::string& text);
nanobind::list texts_from(const std::vector<std::string>& texts);

// Adds the exception that Error is in Python. Its text may be foreign, too.
void bind_error(nanobind::module_& m);

}  // namespace atb_core
