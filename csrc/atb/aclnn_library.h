// SPDX-License-Identifier: Apache-2.0
// The functions of CANN's libopapi that the backend calls. They are looked up by name when the first is needed: CANN's
// versions have different ones, and a model that needs none runs without the library.
#pragma once

#include <acl/acl.h>

#include <cstdint>
#include <string>

// CANN's own types, of which only the addresses are used.
struct aclTensor;
struct aclTensorList;
struct aclOpExecutor;

namespace atb_core::ascend {

using AclnnStatus = int32_t;

// Functions that make what all calls take; each has the name and the signature of CANN's.
struct AclnnBasics {
  aclTensor* (*aclCreateTensor)(const int64_t* view_dims, uint64_t view_dims_num, aclDataType dtype,
                                const int64_t* strides, int64_t offset, aclFormat format, const int64_t* storage_dims,
                                uint64_t storage_dims_num, void* data);
  AclnnStatus (*aclDestroyTensor)(const aclTensor*);
  aclTensorList* (*aclCreateTensorList)(const aclTensor* const* tensors, uint64_t count);
  // Destroys the tensors of the list, too.
  AclnnStatus (*aclDestroyTensorList)(const aclTensorList*);
  AclnnStatus (*aclSetAclOpExecutorRepeatable)(aclOpExecutor*);
  AclnnStatus (*aclDestroyAclOpExecutor)(aclOpExecutor*);
};

// Returns the function, null if the library does not load or has none of this name.
void* aclnn_symbol(const char* name);
template <typename Function>
Function aclnn_function(const char* name) {
  return reinterpret_cast<Function>(aclnn_symbol(name));
}

// Returns "" if the library has a call, both of its phases, and the basics; otherwise what is missing.
std::string aclnn_problem(const std::string& call);

// Returns the basics; only where aclnn_problem() returned "".
const AclnnBasics& aclnn_basics();

// Replaces the library by another source of functions, such as the simulator.
void find_aclnn_with(void* (*find)(const char* name));

}  // namespace atb_core::ascend
