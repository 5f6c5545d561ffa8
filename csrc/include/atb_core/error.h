// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <sstream>
#include <stdexcept>
#include <string>

namespace atb_core {

// What the user did wrong (a bad graph, bad data, a missing weight). Python sees it as EngineError.
class Error : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

// fail("op ", name, ": rank ", rank, " is too large") throws an Error with the parts written one after another.
template <typename... Parts>
[[noreturn]] void fail(const Parts&... parts) {
  std::ostringstream text;
  (text << ... << parts);
  throw Error(text.str());
}

}  // namespace atb_core
