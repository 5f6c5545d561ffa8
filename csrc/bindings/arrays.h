// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <nanobind/nanobind.h>

#include <vector>

#include "graph/arguments.h"

namespace atb_core {

// Appends the memory of numpy arrays: `values` has one for each of `slots`, which are (name, number, dtype, ...).
// Returns false if the names are others, or a value is anything but a writable, C-contiguous numpy.ndarray whose dtype
// is that very object: the caller then has to check and convert them. Reads arrays where they are, because a step has
// few microseconds for it and even the buffer protocol would take some of them.
bool append_arrays(std::vector<Argument>& arguments, nanobind::list slots, nanobind::dict values);

}  // namespace atb_core
