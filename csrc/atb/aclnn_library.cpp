// SPDX-License-Identifier: Apache-2.0
#include "atb/aclnn_library.h"

#include <dlfcn.h>

#include <atomic>

namespace atb_core::ascend {
namespace {

constexpr const char* kLibrary = "libopapi.so";

void* find_in_library(const char* name) {
  // Never closed: kernels of the library may run until the process ends. A look-up includes what it is linked with.
  static void* const kOpened = dlopen(kLibrary, RTLD_NOW | RTLD_LOCAL);
  return kOpened == nullptr ? nullptr : dlsym(kOpened, name);
}

std::atomic<void* (*)(const char*)> g_find = &find_in_library;

constexpr const char* kBasics[] = {"aclCreateTensor",      "aclDestroyTensor",        "aclCreateTensorList",
                                   "aclDestroyTensorList", "aclDestroyAclOpExecutor", "aclSetAclOpExecutorRepeatable"};

}  // namespace

void* aclnn_symbol(const char* name) { return g_find.load()(name); }

void find_aclnn_with(void* (*find)(const char* name)) { g_find = find; }

std::string aclnn_problem(const std::string& call) {
  const std::string phase = call + "GetWorkspaceSize";
  for (const char* name : {phase.c_str(), call.c_str()}) {
    if (aclnn_symbol(name) == nullptr) return std::string(kLibrary) + " of CANN has no " + name;
  }
  for (const char* name : kBasics) {
    if (aclnn_symbol(name) == nullptr) return std::string(kLibrary) + " of CANN has no " + name;
  }
  return "";
}

const AclnnBasics& aclnn_basics() {
  static const AclnnBasics kFound = {
      aclnn_function<decltype(AclnnBasics::aclCreateTensor)>("aclCreateTensor"),
      aclnn_function<decltype(AclnnBasics::aclDestroyTensor)>("aclDestroyTensor"),
      aclnn_function<decltype(AclnnBasics::aclCreateTensorList)>("aclCreateTensorList"),
      aclnn_function<decltype(AclnnBasics::aclDestroyTensorList)>("aclDestroyTensorList"),
      aclnn_function<decltype(AclnnBasics::aclSetAclOpExecutorRepeatable)>("aclSetAclOpExecutorRepeatable"),
      aclnn_function<decltype(AclnnBasics::aclDestroyAclOpExecutor)>("aclDestroyAclOpExecutor"),
  };
  return kFound;
}

}  // namespace atb_core::ascend
