// SPDX-License-Identifier: Apache-2.0
// Where the ranks of a communicator meet: threads of one process.
#pragma once

#include <chrono>
#include <functional>
#include <string>
#include <vector>

#include "operation_base.h"

namespace atb::sim {

// All ranks of `domain` call this; each gets everybody's view in the order of the ranks, computes from them with
// `work`, and returns once nobody reads any more. Then it may write its own output, even over its input.
// Throws std::runtime_error if the others do not come within the timeout, or bring another shape or type.
void meet(const std::string& domain, int rank, int size, const View& mine,
          const std::function<void(const std::vector<View>&)>& work);

// How long a rank waits for the others; 60 seconds unless a test says otherwise.
void set_rendezvous_timeout(std::chrono::milliseconds timeout);

}  // namespace atb::sim
