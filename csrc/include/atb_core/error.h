// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <sstream>
#include <stdexcept>
#include <string>

namespace atb_core {

// An error that the user can cause: an invalid graph, bad data, a missing weight. Python raises it as EngineError.
class Error : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

// Throws an Error with the parts written one after another: fail("op ", name, ": rank ", rank, " is too large").
template <typename... Parts>
[[noreturn]] void fail(const Parts&... parts) {
  std::ostringstream text;
  (text << ... << parts);
  throw Error(text.str());
}

}  // namespace atb_core
