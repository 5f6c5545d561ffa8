// SPDX-License-Identifier: Apache-2.0
#include "aclnn/executor.h"

#include <algorithm>
#include <mutex>
#include <set>
#include <utility>

#include "memory.h"
#include "ops/numeric.h"
#include "state.h"
#include "stream.h"

struct aclOpExecutor {
  atb::sim::Plan plan;
  bool repeatable = false;
};

namespace atb::sim {
namespace {

std::mutex g_mutex;

// Tensors, lists and executors that live.
std::set<const void*>& objects() {
  static auto* const kObjects = new std::set<const void*>;
  return *kObjects;
}

bool is_object(const void* object) {
  const std::lock_guard lock(g_mutex);
  return objects().contains(object);
}

template <typename T>
T* adopt(T* made) {
  const std::lock_guard lock(g_mutex);
  objects().insert(made);
  account([](Counters& now) { ++now.live_aclnn; });
  return made;
}

// Deletes an object; returns false if it is none.
template <typename T>
bool drop(const T* object) {
  {
    const std::lock_guard lock(g_mutex);
    if (objects().erase(object) == 0) return false;
  }
  account([](Counters& now) { --now.live_aclnn; });
  delete object;
  return true;
}

int64_t bits_of(aclDataType dtype) { return dtype == ACL_INT4 ? 4 : static_cast<int64_t>(size_of(dtype)) * 8; }

uint64_t stored_bytes(const aclTensor& tensor) {
  return static_cast<uint64_t>(product(tensor.storage) * bits_of(tensor.dtype) / 8);
}

// Calls `each` with the place of every element in memory, in the order of the view.
template <typename Each>
void walk(const aclTensor& tensor, Each&& each) {
  std::vector<int64_t> at(tensor.dims.size());
  const int64_t count = product(tensor.dims);
  int64_t place = tensor.offset;
  for (int64_t i = 0; i < count; ++i) {
    each(static_cast<size_t>(i), place);
    for (size_t axis = at.size(); axis-- > 0;) {
      place += tensor.strides[axis];
      if (++at[axis] < tensor.dims[axis]) break;
      place -= tensor.dims[axis] * tensor.strides[axis];
      at[axis] = 0;
    }
  }
}

std::byte* bytes_of(const aclTensor& tensor) { return static_cast<std::byte*>(window(tensor.data)); }

int64_t integer_at(const aclTensor& tensor, const std::byte* data, int64_t place) {
  if (tensor.dtype != ACL_INT4) return load_integer(data, tensor.dtype, place);
  const auto byte = static_cast<uint8_t>(data[place / 2]);
  const int nibble = place % 2 == 0 ? byte & 15 : byte >> 4;
  return nibble < 8 ? nibble : nibble - 16;
}

bool is_float(aclDataType dtype) { return dtype == ACL_FLOAT || dtype == ACL_FLOAT16 || dtype == ACL_BF16; }

}  // namespace

bool lives(const aclTensor* tensor) { return is_object(tensor); }
bool lives(const aclTensorList* list) { return is_object(list); }

bool contiguous(const aclTensor& tensor) {
  int64_t stride = 1;
  for (size_t axis = tensor.dims.size(); axis-- > 0;) {
    if (tensor.dims[axis] != 1 && tensor.strides[axis] != stride) return false;
    stride *= tensor.dims[axis];
  }
  return tensor.offset == 0;
}

bool turned(const aclTensor& tensor) {
  if (tensor.dims.size() < 2) return false;
  aclTensor back = tensor;
  std::swap(back.dims[back.dims.size() - 2], back.dims.back());
  std::swap(back.strides[back.strides.size() - 2], back.strides.back());
  return !contiguous(tensor) && contiguous(back);
}

std::string describe(const aclTensor* tensor) {
  if (tensor == nullptr) return "null";
  const std::string type = tensor->dtype == ACL_INT4 ? "int4" : text(tensor->dtype);
  return type + " " + text(tensor->dims) + (turned(*tensor) ? " transposed" : "");
}

std::vector<float> values(const aclTensor& tensor) {
  std::vector<float> result(static_cast<size_t>(product(tensor.dims)));
  const std::byte* data = bytes_of(tensor);
  if (is_float(tensor.dtype) && contiguous(tensor)) {
    load(data, tensor.dtype, 0, product(tensor.dims), result.data());
    return result;
  }
  walk(tensor, [&](size_t i, int64_t place) {
    result[i] = is_float(tensor.dtype) ? load_one(data, tensor.dtype, place)
                                       : static_cast<float>(integer_at(tensor, data, place));
  });
  return result;
}

std::vector<int64_t> integers(const aclTensor& tensor) {
  std::vector<int64_t> result(static_cast<size_t>(product(tensor.dims)));
  const std::byte* data = bytes_of(tensor);
  walk(tensor, [&](size_t i, int64_t place) { result[i] = integer_at(tensor, data, place); });
  return result;
}

void assign(const aclTensor& tensor, const std::vector<float>& values) {
  store(values.data(), tensor.dtype, 0, static_cast<int64_t>(values.size()), bytes_of(tensor));
}

void assign(const aclTensor& tensor, const std::vector<int64_t>& values) {
  std::byte* data = bytes_of(tensor);
  for (size_t i = 0; i < values.size(); ++i) {
    if (tensor.dtype == ACL_INT64) {
      reinterpret_cast<int64_t*>(data)[i] = values[i];
    } else {
      reinterpret_cast<int32_t*>(data)[i] = static_cast<int32_t>(values[i]);
    }
  }
}

aclnnStatus planned(Plan plan, uint64_t* workspace, aclOpExecutor** executor) {
  if (workspace == nullptr || executor == nullptr) {
    return reject(kNullPointer, plan.call, ": workspaceSize or executor is null");
  }
  *workspace = plan.workspace;
  *executor = adopt(new aclOpExecutor{std::move(plan)});
  return ACL_SUCCESS;
}

namespace {

aclnnStatus check_memory(const Plan& plan, const void* workspace, uint64_t bytes) {
  std::string why;
  if (bytes < plan.workspace) {
    return reject(kInvalid, plan.call, ": a workspace of ", bytes, " bytes where ", plan.workspace, " are needed");
  }
  if (plan.workspace > 0 && !is_live(workspace, plan.workspace, why)) {
    return reject(kInvalid, plan.call, ": bad workspace: ", why);
  }
  for (const aclTensor& tensor : plan.tensors) {
    if (is_live(tensor.data, stored_bytes(tensor), why)) continue;
    return reject(kInvalid, plan.call, ": ", describe(&tensor), " has no valid address: ", why);
  }
  return ACL_SUCCESS;
}

aclError run(const Plan& plan) {
  if (const auto due = kernel_fault()) {
    explain(plan.call + " was told to fail with " + std::to_string(*due));
    return *due;
  }
  try {
    std::string why;
    for (const aclTensor& tensor : plan.tensors) {
      if (!is_live(tensor.data, stored_bytes(tensor), why)) {
        throw std::runtime_error("memory was freed before it ran: " + why);
      }
    }
    plan.kernel(plan.tensors);
    return ACL_SUCCESS;
  } catch (const std::exception& error) {
    explain(plan.call + ": " + error.what());
    return ACL_ERROR_RT_AICORE_EXCEPTION;
  }
}

}  // namespace

aclnnStatus execute(const char* call, void* workspace, uint64_t bytes, aclOpExecutor* executor, aclrtStream stream) {
  if (!is_object(executor)) return reject(kNullPointer, call, ": there is no such executor, or it has run already");
  const Plan plan = executor->plan;
  // A second phase frees its executor, also where it fails.
  if (!executor->repeatable) drop(executor);
  ATB_SIM_CALL(call);
  if (plan.call != call) return reject(kInvalid, call, ": the executor was made for ", plan.call);
  if (!device_chosen()) return reject(kInvalid, call, ": on a thread that has not called aclrtSetDevice");
  if (!is_stream(stream)) return reject(kInvalid, call, ": there is no such stream");
  ATB_SIM_TRY(check_memory(plan, workspace, bytes));
  account([](Counters& now) { ++now.launches; });
  enqueue(stream, [plan] { return run(plan); });
  return ACL_SUCCESS;
}

}  // namespace atb::sim

using atb::sim::reject;

extern "C" {

aclTensor* aclCreateTensor(const int64_t* view_dims, uint64_t view_dims_num, aclDataType dtype, const int64_t* strides,
                           int64_t offset, aclFormat format, const int64_t* storage_dims, uint64_t storage_dims_num,
                           void* data) {
  if (atb::sim::fault("aclCreateTensor")) return nullptr;
  std::vector<int64_t> dims(view_dims, view_dims + view_dims_num), steps(dims.size(), 1);
  for (size_t axis = dims.size(); axis > 1; --axis) steps[axis - 2] = steps[axis - 1] * dims[axis - 1];
  if (strides != nullptr) steps.assign(strides, strides + view_dims_num);
  return atb::sim::adopt(new aclTensor{
      dtype, format, std::move(dims), std::move(steps), {storage_dims, storage_dims + storage_dims_num}, offset, data});
}

aclnnStatus aclDestroyTensor(const aclTensor* tensor) {
  return atb::sim::drop(tensor) ? ACL_SUCCESS : reject(atb::sim::kInvalid, "aclDestroyTensor: there is no such tensor");
}

aclTensorList* aclCreateTensorList(const aclTensor* const* tensors, uint64_t count) {
  auto* list = new aclTensorList;
  for (uint64_t i = 0; i < count; ++i) list->tensors.push_back(const_cast<aclTensor*>(tensors[i]));
  return atb::sim::adopt(list);
}

aclnnStatus aclDestroyTensorList(const aclTensorList* list) {
  if (!atb::sim::lives(list)) return reject(atb::sim::kInvalid, "aclDestroyTensorList: there is no such list");
  for (const aclTensor* tensor : list->tensors) atb::sim::drop(tensor);
  atb::sim::drop(list);
  return ACL_SUCCESS;
}

aclnnStatus aclSetAclOpExecutorRepeatable(aclOpExecutor* executor) {
  ATB_SIM_CALL("aclSetAclOpExecutorRepeatable");
  if (!atb::sim::is_object(executor)) return reject(atb::sim::kInvalid, "there is no such executor");
  executor->repeatable = true;
  return ACL_SUCCESS;
}

aclnnStatus aclDestroyAclOpExecutor(aclOpExecutor* executor) {
  if (!atb::sim::is_object(executor) || !executor->repeatable) {
    return reject(atb::sim::kInvalid, "aclDestroyAclOpExecutor: there is no such executor, or none that is repeatable");
  }
  atb::sim::drop(executor);
  return ACL_SUCCESS;
}

}  // extern "C"

namespace atb::sim {

void* executor_symbol(std::string_view name) {
  static const std::pair<std::string_view, void*> kFunctions[] = {
      {"aclCreateTensor", reinterpret_cast<void*>(&aclCreateTensor)},
      {"aclDestroyTensor", reinterpret_cast<void*>(&aclDestroyTensor)},
      {"aclCreateTensorList", reinterpret_cast<void*>(&aclCreateTensorList)},
      {"aclDestroyTensorList", reinterpret_cast<void*>(&aclDestroyTensorList)},
      {"aclSetAclOpExecutorRepeatable", reinterpret_cast<void*>(&aclSetAclOpExecutorRepeatable)},
      {"aclDestroyAclOpExecutor", reinterpret_cast<void*>(&aclDestroyAclOpExecutor)},
  };
  for (const auto& [known, function] : kFunctions) {
    if (known == name) return function;
  }
  return nullptr;
}

}  // namespace atb::sim
