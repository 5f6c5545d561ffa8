// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <acl/acl.h>

namespace atb::sim {

// Events that note when a stream passes them, by the steady clock of the host.
aclrtEvent create_event();
// Returns false for what is no event, and for one that a stream has not passed yet.
bool destroy_event(aclrtEvent event);
// Returns false for what is no event or no stream.
bool record_event(aclrtEvent event, aclrtStream stream);
// Sets the milliseconds from one event to another of the same stream.
aclError elapsed(aclrtEvent start, aclrtEvent end, float& milliseconds);

}  // namespace atb::sim
