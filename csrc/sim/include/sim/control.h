// SPDX-License-Identifier: Apache-2.0
// Settings, accounts and faults of the simulator.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace atb::sim {

// Since the process began.
struct Counters {
  uint64_t live_bytes, peak_bytes, live_allocations, allocations;  // of device memory
  uint64_t launches, setups, executes, creates;                    // kernels; calls of operations
  uint64_t live_operations, live_contexts, live_streams, live_events;
  uint64_t live_aclnn;  // tensors, lists of them and executors
  uint64_t copies_h2d, bytes_h2d, copies_d2h, bytes_d2h, copies_d2d, bytes_d2d;
};
Counters counters();
void reset_peak();

// Returns the calls since logging was switched on: "aclrtMalloc", "Operation::Setup model_layers_3", ...
void set_logging(bool on);
std::vector<std::string> call_log();

// Makes the n-th next call (0: the next one) of `call` (of any function if empty) return `status` instead of doing its
// work. A call that releases a resource does its work first.
void inject(const std::string& call, uint64_t n, int32_t status);
// Makes the n-th next kernel fail; a wait for its stream returns the status.
void inject_async(uint64_t n, int32_t status);
void clear_faults();
bool fault_pending();
// Returns the number of calls so far in which a fault could be injected.
uint64_t calls();

// Settings of devices that are opened from now on. Initial values are ATB_SIM_SOC, ATB_SIM_VERSION, ATB_SIM_MEMORY and
// ATB_SIM_DEVICES.
void set_soc(const std::string& name);
void set_version(const std::string& version);
void set_memory(uint64_t bytes);
// Sets the number of devices, 1 to 16. They share one memory and its counters.
void set_devices(uint32_t count);

// Returns device memory as the host can access it, and the reverse; null for an address outside of the memory.
void* window(const void* device);
void* device_address(const void* window);

// Returns why the last refused call was refused.
std::string last_message();

}  // namespace atb::sim
