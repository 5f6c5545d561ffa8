// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <acl/acl.h>

#include <functional>

namespace atb::sim {

// A stream runs its tasks in order on a thread of its own. After a task that fails the others are skipped until a
// caller waits and gets the failure.
using Task = std::function<aclError()>;

aclrtStream create_stream();
bool is_stream(aclrtStream stream);
// Returns false if there is no such stream. Waits for its tasks.
bool destroy_stream(aclrtStream stream);
bool enqueue(aclrtStream stream, Task task);
// Returns the status of the first task that failed since the last call.
aclError synchronize(aclrtStream stream);

}  // namespace atb::sim
