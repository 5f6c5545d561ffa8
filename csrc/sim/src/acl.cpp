// SPDX-License-Identifier: Apache-2.0
#include <acl/acl.h>

#include <algorithm>
#include <atomic>
#include <cstdlib>
#include <cstring>
#include <optional>
#include <string>

#include "event.h"
#include "memory.h"
#include "operation_base.h"
#include "state.h"
#include "stream.h"

namespace atb::sim {
namespace {

std::atomic<bool> g_initialized = false;
// A real device has to be chosen by each thread that uses it.
thread_local std::optional<int32_t> t_device;

// Checks and the fault of a call that needs a device.
aclError begin(const char* call, const std::string& detail = {}) {
  if (const auto due = fault(call, detail)) return *due;
  if (!g_initialized) {
    explain(std::string(call) + ": aclInit has not been called");
    return ACL_ERROR_UNINITIALIZE;
  }
  if (!t_device) {
    explain(std::string(call) + ": aclrtSetDevice has not been called on this thread");
    return ACL_ERROR_INVALID_DEVICE;
  }
  return ACL_SUCCESS;
}

aclError refuse(aclError status, const std::string& why) {
  explain(why);
  return status;
}

#define ATB_SIM_BEGIN(...)                                                   \
  do {                                                                       \
    if (const aclError begun_ = begin(__VA_ARGS__); begun_ != ACL_SUCCESS) { \
      return begun_;                                                         \
    }                                                                        \
  } while (false)

#define ATB_SIM_WANT(call, condition)                                                            \
  do {                                                                                           \
    if (!(condition)) return refuse(ACL_ERROR_INVALID_PARAM, call ": a null pointer was given"); \
  } while (false)

// Returns the host's address of one side of a copy, or null and explains the reason.
std::byte* reach(const void* address, size_t bytes, bool on_device, const char* call) {
  if (!on_device) {
    if (address != nullptr && !is_device_address(address)) return static_cast<std::byte*>(const_cast<void*>(address));
    explain(std::string(call) + ": an address of the host is wanted where one of the device was given");
    return nullptr;
  }
  std::string why;
  if (is_live(address, bytes, why)) return static_cast<std::byte*>(window(address));
  explain(std::string(call) + ": bad device address: " + why);
  return nullptr;
}

struct Direction {
  bool from_device, to_device;
};

Direction direction(aclrtMemcpyKind kind) {
  return {kind == ACL_MEMCPY_DEVICE_TO_HOST || kind == ACL_MEMCPY_DEVICE_TO_DEVICE,
          kind == ACL_MEMCPY_HOST_TO_DEVICE || kind == ACL_MEMCPY_DEVICE_TO_DEVICE};
}

void account_copy(Direction way, size_t bytes) {
  account([&](Counters& now) {
    if (way.from_device && way.to_device) {
      ++now.copies_d2d;
      now.bytes_d2d += bytes;
    } else if (way.to_device) {
      ++now.copies_h2d;
      now.bytes_h2d += bytes;
    } else if (way.from_device) {
      ++now.copies_d2h;
      now.bytes_d2h += bytes;
    }
  });
}

aclError check_copy(const char* call, void* to, size_t room, const void* from, size_t bytes, Direction way) {
  if (bytes > room) {
    return refuse(ACL_ERROR_RT_PARAM_INVALID,
                  std::string(call) + ": " + std::to_string(bytes) + " bytes do not fit into " + std::to_string(room));
  }
  if (reach(to, bytes, way.to_device, call) == nullptr || reach(from, bytes, way.from_device, call) == nullptr) {
    return ACL_ERROR_RT_PARAM_INVALID;
  }
  return ACL_SUCCESS;
}

aclError copy_now(const char* call, void* to, const void* from, size_t bytes, Direction way) {
  std::byte* target = reach(to, bytes, way.to_device, call);
  const std::byte* source = reach(from, bytes, way.from_device, call);
  if (target == nullptr || source == nullptr) return ACL_ERROR_RT_PARAM_INVALID;
  std::memmove(target, source, bytes);
  account_copy(way, bytes);
  return ACL_SUCCESS;
}

aclError fill_now(const char* call, void* memory, int32_t value, size_t bytes) {
  std::byte* target = reach(memory, bytes, true, call);
  if (target == nullptr) return ACL_ERROR_RT_PARAM_INVALID;
  std::memset(target, value, bytes);
  return ACL_SUCCESS;
}

aclError submit(const char* call, aclrtStream stream, Task task) {
  if (enqueue(stream, std::move(task))) return ACL_SUCCESS;
  return refuse(ACL_ERROR_RT_STREAM_CONTEXT, std::string(call) + ": there is no such stream, or it was destroyed");
}

bool is_device(int32_t device) { return device >= 0 && static_cast<uint32_t>(device) < devices(); }

std::string no_device(int32_t device) {
  return "there is no device " + std::to_string(device) + ", their number is " + std::to_string(devices());
}

}  // namespace

bool device_chosen() { return t_device.has_value(); }

}  // namespace atb::sim

using namespace atb::sim;  // NOLINT: these functions belong to no namespace

extern "C" {

aclError aclInit(const char*) {
  ATB_SIM_CALL("aclInit");
  if (!g_initialized.exchange(true)) return ACL_SUCCESS;
  return refuse(ACL_ERROR_REPEAT_INITIALIZE, "aclInit has been called before");
}

aclError aclFinalize() {
  ATB_SIM_CALL("aclFinalize");
  if (g_initialized.exchange(false)) return ACL_SUCCESS;
  return refuse(ACL_ERROR_UNINITIALIZE, "aclFinalize: aclInit has not been called");
}

const char* aclGetRecentErrMsg() {
  thread_local std::string message;
  message = last_message();
  return message.c_str();
}

aclError aclrtGetVersion(int32_t* major, int32_t* minor, int32_t* patch) {
  ATB_SIM_CALL("aclrtGetVersion");
  ATB_SIM_WANT("aclrtGetVersion", major != nullptr && minor != nullptr && patch != nullptr);
  *major = 1;
  *minor = 14;
  *patch = 0;
  return ACL_SUCCESS;
}

aclError aclrtGetDeviceCount(uint32_t* count) {
  ATB_SIM_CALL("aclrtGetDeviceCount");
  ATB_SIM_WANT("aclrtGetDeviceCount", count != nullptr);
  *count = devices();
  return ACL_SUCCESS;
}

aclError aclrtSetDevice(int32_t device) {
  ATB_SIM_CALL("aclrtSetDevice");
  if (!g_initialized) return refuse(ACL_ERROR_UNINITIALIZE, "aclrtSetDevice: aclInit has not been called");
  if (!is_device(device)) return refuse(ACL_ERROR_INVALID_DEVICE, "aclrtSetDevice: " + no_device(device));
  t_device = device;
  return ACL_SUCCESS;
}

aclError aclrtGetDevice(int32_t* device) {
  ATB_SIM_CALL("aclrtGetDevice");
  ATB_SIM_WANT("aclrtGetDevice", device != nullptr);
  if (!t_device) return refuse(ACL_ERROR_RT_CONTEXT_NULL, "aclrtGetDevice: this thread has chosen no device");
  *device = *t_device;
  return ACL_SUCCESS;
}

aclError aclrtResetDevice(int32_t device) {
  if (t_device == device) t_device.reset();
  ATB_SIM_CALL("aclrtResetDevice");
  if (!is_device(device)) return refuse(ACL_ERROR_INVALID_DEVICE, "aclrtResetDevice: " + no_device(device));
  return ACL_SUCCESS;
}

const char* aclrtGetSocName() {
  thread_local std::string name;
  if (fault("aclrtGetSocName")) return nullptr;
  name = soc();
  return name.c_str();
}

aclError aclrtGetMemInfo(aclrtMemAttr, size_t* free, size_t* total) {
  ATB_SIM_BEGIN("aclrtGetMemInfo");
  ATB_SIM_WANT("aclrtGetMemInfo", free != nullptr && total != nullptr);
  *total = capacity();
  *free = *total - std::min<uint64_t>(*total, counters().live_bytes);
  return ACL_SUCCESS;
}

aclError aclrtCreateStream(aclrtStream* stream) {
  ATB_SIM_BEGIN("aclrtCreateStream");
  ATB_SIM_WANT("aclrtCreateStream", stream != nullptr);
  *stream = create_stream();
  return ACL_SUCCESS;
}

aclError aclrtDestroyStream(aclrtStream stream) {
  const bool known = destroy_stream(stream);
  ATB_SIM_BEGIN("aclrtDestroyStream");
  return known ? ACL_SUCCESS : refuse(ACL_ERROR_RT_STREAM_CONTEXT, "aclrtDestroyStream: there is no such stream");
}

aclError aclrtSynchronizeStream(aclrtStream stream) {
  // A wait with an injected fault waits, too: memory may be freed after it.
  const bool known = is_stream(stream);
  const aclError status = synchronize(stream);
  ATB_SIM_BEGIN("aclrtSynchronizeStream");
  return known ? status : refuse(status, "aclrtSynchronizeStream: there is no such stream, or it was destroyed");
}

aclError aclrtCreateEventWithFlag(aclrtEvent* event, uint32_t flag) {
  ATB_SIM_BEGIN("aclrtCreateEventWithFlag");
  ATB_SIM_WANT("aclrtCreateEventWithFlag", event != nullptr);
  if (flag != ACL_EVENT_TIME_LINE) {
    return refuse(ACL_ERROR_INVALID_PARAM,
                  "aclrtCreateEventWithFlag: the simulator has events of ACL_EVENT_TIME_LINE alone");
  }
  *event = create_event();
  return ACL_SUCCESS;
}

aclError aclrtDestroyEvent(aclrtEvent event) {
  const bool known = destroy_event(event);
  ATB_SIM_BEGIN("aclrtDestroyEvent");
  return known ? ACL_SUCCESS
               : refuse(ACL_ERROR_RT_PARAM_INVALID,
                        "aclrtDestroyEvent: there is no such event, or a stream has not come to it yet");
}

aclError aclrtRecordEvent(aclrtEvent event, aclrtStream stream) {
  ATB_SIM_BEGIN("aclrtRecordEvent");
  if (record_event(event, stream)) return ACL_SUCCESS;
  return refuse(is_stream(stream) ? ACL_ERROR_RT_PARAM_INVALID : ACL_ERROR_RT_STREAM_CONTEXT,
                "aclrtRecordEvent: there is no such event or no such stream, or it was destroyed");
}

aclError aclrtEventElapsedTime(float* ms, aclrtEvent start, aclrtEvent end) {
  ATB_SIM_BEGIN("aclrtEventElapsedTime");
  ATB_SIM_WANT("aclrtEventElapsedTime", ms != nullptr);
  return elapsed(start, end, *ms);
}

aclError aclrtMalloc(void** address, size_t size, aclrtMemMallocPolicy) {
  ATB_SIM_BEGIN("aclrtMalloc", std::to_string(size));
  ATB_SIM_WANT("aclrtMalloc", address != nullptr);
  if (size == 0) return refuse(ACL_ERROR_RT_PARAM_INVALID, "aclrtMalloc: no bytes were asked for");
  *address = allocate(size);
  if (*address != nullptr) return ACL_SUCCESS;
  return refuse(ACL_ERROR_RT_MEMORY_ALLOCATION, "aclrtMalloc: the device has no " + std::to_string(size) + " bytes");
}

aclError aclrtFree(void* address) {
  const bool known = release(address);
  ATB_SIM_BEGIN("aclrtFree");
  return known ? ACL_SUCCESS : refuse(ACL_ERROR_RT_PARAM_INVALID, "aclrtFree: nothing was allocated at this address");
}

aclError aclrtMallocHost(void** address, size_t size) {
  ATB_SIM_BEGIN("aclrtMallocHost", std::to_string(size));
  *address = std::malloc(size);
  return *address != nullptr ? ACL_SUCCESS : ACL_ERROR_RT_MEMORY_ALLOCATION;
}

aclError aclrtFreeHost(void* address) {
  std::free(address);
  ATB_SIM_BEGIN("aclrtFreeHost");
  return ACL_SUCCESS;
}

aclError aclrtMemcpy(void* to, size_t room, const void* from, size_t bytes, aclrtMemcpyKind kind) {
  ATB_SIM_BEGIN("aclrtMemcpy", std::to_string(bytes));
  const Direction way = direction(kind);
  const aclError status = check_copy("aclrtMemcpy", to, room, from, bytes, way);
  return status == ACL_SUCCESS ? copy_now("aclrtMemcpy", to, from, bytes, way) : status;
}

aclError aclrtMemcpyAsync(void* to, size_t room, const void* from, size_t bytes, aclrtMemcpyKind kind,
                          aclrtStream stream) {
  ATB_SIM_BEGIN("aclrtMemcpyAsync", std::to_string(bytes));
  const Direction way = direction(kind);
  const aclError status = check_copy("aclrtMemcpyAsync", to, room, from, bytes, way);
  if (status != ACL_SUCCESS) return status;
  return submit("aclrtMemcpyAsync", stream, [=] { return copy_now("aclrtMemcpyAsync", to, from, bytes, way); });
}

aclError aclrtMemset(void* memory, size_t room, int32_t value, size_t bytes) {
  ATB_SIM_BEGIN("aclrtMemset", std::to_string(bytes));
  if (bytes > room) return refuse(ACL_ERROR_RT_PARAM_INVALID, "aclrtMemset: more bytes than there is room");
  return fill_now("aclrtMemset", memory, value, bytes);
}

aclError aclrtMemsetAsync(void* memory, size_t room, int32_t value, size_t bytes, aclrtStream stream) {
  ATB_SIM_BEGIN("aclrtMemsetAsync", std::to_string(bytes));
  if (bytes > room) return refuse(ACL_ERROR_RT_PARAM_INVALID, "aclrtMemsetAsync: more bytes than there is room");
  return submit("aclrtMemsetAsync", stream, [=] { return fill_now("aclrtMemsetAsync", memory, value, bytes); });
}

}  // extern "C"
