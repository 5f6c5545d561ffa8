// SPDX-License-Identifier: Apache-2.0
// Refusals of operations: a status and a sentence that explains it.
#pragma once

#include <atb/types.h>

#include <sstream>
#include <string>

#include "operation_base.h"

namespace atb::sim {

// return reject(ERROR_INVALID_TENSOR_DIM, "gamma has ", n, " elements, x's rows have ", m);
template <typename... Parts>
Status reject(Status status, const Parts&... parts) {
  std::ostringstream text;
  (text << ... << parts);
  explain(text.str());
  return status;
}

}  // namespace atb::sim

// Leaves the function with the status of an expression that is not NO_ERROR.
#define ATB_SIM_TRY(expression)                     \
  do {                                              \
    const ::atb::Status status_ = (expression);     \
    if (status_ != ::atb::NO_ERROR) return status_; \
  } while (false)
