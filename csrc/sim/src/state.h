// SPDX-License-Identifier: Apache-2.0
// Settings, accounts, faults and the log of the process; control.h shows them to the outside.
#pragma once

#include <sim/control.h>

#include <optional>
#include <string>

namespace atb::sim {

// Begins a call: logs it, and tells the status that it has to return if a fault is due. `detail` is logged, too.
std::optional<int32_t> fault(const char* call, const std::string& detail = {});
// Whether the kernel that is launched now has to fail, and with which status.
std::optional<int32_t> kernel_fault();

// Changes the accounts under their lock.
template <typename Change>
void account(Change&& change);

uint64_t memory_limit();
uint32_t devices();

// Whether this thread has chosen its device. Each thread that uses one has to.
bool device_chosen();

// Leaves the function with the status of a due fault.
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
