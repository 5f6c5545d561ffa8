// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <nanobind/nanobind.h>

#include <string>
#include <vector>

#include "graph/arguments.h"
#include "graph/graph.h"
#include "graph/run_times.h"

namespace atb_core {

// Returns a graph from Python lists, whose form Program.__init__ describes. Throws Error (or TypeError) with the
// position of a wrong item.
GraphSpec graph_from_python(const std::vector<std::string>& dims, nanobind::sequence tensors, nanobind::sequence nodes);

// Returns inputs and outputs from lists of equal length: numbers, addresses, shapes.
std::vector<Argument> arguments_from(const std::vector<int>& tensors, const std::vector<uintptr_t>& data,
                                     nanobind::sequence shapes);

// Returns text that third-party code may have written; bytes that are not UTF-8 are escaped.
nanobind::object text_from(const std::string& text);
nanobind::list texts_from(const std::vector<std::string>& texts);

// Returns (begin, end, nodes, times) of each run: int32 and pairs of int64 as bytes.
nanobind::list rows_from(const std::vector<RunTimes>& runs);

// Makes Error, and memory that the system refuses, an EngineError of atb_core in Python. The text of an Error may come
// from third-party code.
void raise_engine_errors();

}  // namespace atb_core
