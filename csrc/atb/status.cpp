// SPDX-License-Identifier: Apache-2.0
#include "atb/status.h"

#include <array>

namespace atb_core::ascend {
namespace {

// Indexed by code; the last two exist since ATB 8.1.
constexpr std::array kNames = {"NO_ERROR",
                               "ERROR_INVALID_PARAM",
                               "ERROR_INVALID_GRAPH",
                               "ERROR_INTERNAL_ERROR",
                               "ERROR_RT_FAIL",
                               "ERROR_INVALID_IN_TENSOR_NUM",
                               "ERROR_INVALID_TENSOR_DTYPE",
                               "ERROR_INVALID_TENSOR_FORMAT",
                               "ERROR_INVALID_TENSOR_DIM",
                               "ERROR_INVALID_TENSOR_SIZE",
                               "ERROR_OPERATION_NULL_RUNNER",
                               "ERROR_GRAPH_INFERSHAPE_FUNC_FAIL",
                               "ERROR_CANN_ERROR",
                               "ERROR_INVALID_TENSOR_INI_MATCH",
                               "ERROR_INVALID_TENSOR_ADDR",
                               "ERROR_INVALID_TENSOR_NUM",
                               "ERROR_INVALID_TENSOR_DIM_NUM",
                               "ERROR_INVALID_SINGLE_OPERATION_PARAM",
                               "ERROR_GRAPH_NODE_RESHAPE_FUNC_FAIL",
                               "ERROR_INVALID_GRAPH_NODE_CHUNK",
                               "ERROR_INVALID_CONTEXT_ADDR",
                               "ERROR_INVALID_STREAM",
                               "ERROR_INVALID_WORKSPACE_SIZE",
                               "ERROR_INVALID_WORKSPACE_ADDR",
                               "ERROR_INVALID_OPERATION_ADDR",
                               "ERROR_HCCL_FAIL",
                               "ERROR_OUT_OF_DEVICE_MEMORY",
                               "ERROR_OUT_OF_HOST_MEMORY",
                               "ERROR_COMM_EMPTY",
                               "ERROR_COPY_HOST_MEMORY_FAIL"};

}  // namespace

std::string atb_status_text(::atb::Status status) {
  const bool known = status >= 0 && static_cast<size_t>(status) < kNames.size();
  const char* name = known ? kNames[static_cast<size_t>(status)] : "a code that is not documented";
  return std::string(name) + " (" + std::to_string(status) + ")";
}

std::string acl_status_text(aclError status) {
  std::string text = "error " + std::to_string(status);
  const char* message = aclGetRecentErrMsg();
  if (message != nullptr && *message != '\0') text += std::string(", ") + message;
  return text;
}

}  // namespace atb_core::ascend
