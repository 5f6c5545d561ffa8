// SPDX-License-Identifier: Apache-2.0
// From ATB's and ACL's status codes to errors that say what failed.
#pragma once

#include <acl/acl.h>
#include <atb/atb_infer.h>

#include <string>

#include "atb_core/error.h"

namespace atb_core::ascend {

// "ERROR_INVALID_TENSOR_DIM (8)"
std::string atb_status_text(::atb::Status status);

// "error 207001: ..." with what ACL has to say of it.
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
