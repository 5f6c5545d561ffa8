// SPDX-License-Identifier: Apache-2.0
// The meeting point of the ranks of a communicator: threads of one process.
#pragma once

#include <chrono>
#include <functional>
#include <string>
#include <vector>

#include "operation_base.h"

namespace atb::sim {

// Called by all ranks of `domain`: each gets the views of all ranks in their order, computes with `work`, and returns
// when no rank reads any more. Then it may write its own output, even over its input. Throws std::runtime_error if the
// others do not come within the timeout, or bring another shape or type.
void meet(const std::string& domain, int rank, int size, const View& mine,
          const std::function<void(const std::vector<View>&)>& work);

// The time that a rank waits for the others; 60 seconds unless a test sets another.
void set_rendezvous_timeout(std::chrono::milliseconds timeout);

}  // namespace atb::sim
