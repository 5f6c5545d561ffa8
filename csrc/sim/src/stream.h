// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <acl/acl.h>

#include <functional>

namespace atb::sim {

// A stream does its tasks in order on a thread of its own. After a task that fails the rest is skipped until somebody
// waits and is told.
using Task = std::function<aclError()>;

aclrtStream create_stream();
bool is_stream(aclrtStream stream);
// False when there is no such stream. Waits for what it still has to do.
bool destroy_stream(aclrtStream stream);
bool enqueue(aclrtStream stream, Task task);
// The status of the first task that failed since the last time.
aclError synchronize(aclrtStream stream);

}  // namespace atb::sim
