// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <atb/context.h>

#include <cstdint>
#include <string>

namespace atb::sim {

// Returns true if a context exists and has a stream that exists; explains if not.
Status check_context(Context* context, const std::string& who);
// Returns the number of a context, 0 if it does not exist. Each gets one of its own.
uint64_t context_number(Context* context);
bool context_lives(uint64_t number);

}  // namespace atb::sim
