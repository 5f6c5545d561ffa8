// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <atb/context.h>

#include <string>

namespace atb::sim {

// Returns true if a context exists and has a stream that exists; explains if not.
Status check_context(Context* context, const std::string& who);

}  // namespace atb::sim
