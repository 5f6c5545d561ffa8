// SPDX-License-Identifier: Apache-2.0
// The meeting points of the ranks of a communicator: threads of one process, or processes of one machine.
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

// The same for ranks that are processes of one machine and of one user; the views are copies. Rounds of a domain follow
// each other in the same order in all ranks. When a process ends, those that wait for it fail at once.
void meet_processes(const std::string& domain, int rank, int size, const View& mine,
                    const std::function<void(const std::vector<View>&)>& work);

// The time that a rank waits for the others; 60 seconds unless a test sets another.
void set_rendezvous_timeout(std::chrono::milliseconds timeout);
std::chrono::milliseconds rendezvous_timeout();

}  // namespace atb::sim
