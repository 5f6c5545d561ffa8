// SPDX-License-Identifier: Apache-2.0
// Settings, counters, faults and the log of the process; control.h is the public interface.
#pragma once

#include <sim/control.h>

#include <optional>
#include <string>

namespace atb::sim {

// Begins a call: logs it with `detail`, and returns the status of a fault that is due.
std::optional<int32_t> fault(const char* call, const std::string& detail = {});
// Writes what ATB only warns of into the log: "warning: ...".
void warn(const std::string& sentence);
// Returns true, with a status, if the kernel that is launched now has to fail.
std::optional<int32_t> kernel_fault();

// Changes the counters under their lock.
template <typename Change>
void account(Change&& change);

uint64_t memory_limit();
uint32_t devices();

// Returns true if this thread has chosen its device. Each thread that uses a device has to.
bool device_chosen();

// Returns from the function with the status of a fault that is due.
#define ATB_SIM_CALL(...)                                               \
  do {                                                                  \
    if (const auto due_ = ::atb::sim::fault(__VA_ARGS__)) return *due_; \
  } while (false)

namespace detail {
Counters& lock_counters();
void unlock_counters();
}  // namespace detail

template <typename Change>
void account(Change&& change) {
  change(detail::lock_counters());
  detail::unlock_counters();
}

}  // namespace atb::sim
