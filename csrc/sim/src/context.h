// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <atb/context.h>

#include <string>

namespace atb::sim {

// Whether a context exists and has a stream that does; explains if not.
Status check_context(Context* context, const std::string& who);

}  // namespace atb::sim
