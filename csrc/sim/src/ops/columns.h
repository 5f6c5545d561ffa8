// SPDX-License-Identifier: Apache-2.0
// The types and formats that operations support on each family of chips.
#pragma once

#include <atb/types.h>

#include <string>
#include <vector>

namespace atb::sim {

// 910B and 910_93, 310P, 950; on any other chip the simulator has no operation.
enum class Family { a2, i310p, a5, other };
Family family();  // of the simulated SoC
const char* family_name(Family family);
// Returns true if the simulated ATB is at least major.minor.
bool version_since(int major, int minor);

// Returns NO_ERROR if the types and formats of all tensors are one column of the key's rows for the simulated SoC.
Status match_columns(const std::string& op, const std::string& key, const std::vector<TensorDesc>& in,
                     const std::vector<TensorDesc>& out);

}  // namespace atb::sim
