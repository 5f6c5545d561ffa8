// SPDX-License-Identifier: Apache-2.0
// Converts status codes of ATB and ACL to errors that name the failed call.
#pragma once

#include <acl/acl.h>
#include <atb/atb_infer.h>

#include <string>

#include "atb_core/error.h"

namespace atb_core::ascend {

// Returns "ERROR_INVALID_TENSOR_DIM (8)".
std::string atb_status_text(::atb::Status status);

// Returns "error 207001: ..." with ACL's message.
std::string acl_status_text(aclError status);

// Throws Error, "<parts>: <status>", unless the call succeeded.
template <typename... Parts>
void check_atb(::atb::Status status, const Parts&... parts) {
  if (status != ::atb::NO_ERROR) fail(parts..., ": ATB reports ", atb_status_text(status));
}
template <typename... Parts>
void check_acl(aclError status, const Parts&... parts) {
  if (status != ACL_SUCCESS) fail(parts..., ": ACL reports ", acl_status_text(status));
}

}  // namespace atb_core::ascend
