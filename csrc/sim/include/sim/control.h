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
  uint64_t live_operations, live_contexts, live_streams;
  uint64_t copies_h2d, bytes_h2d, copies_d2h, bytes_d2h, copies_d2d, bytes_d2d;
};
Counters counters();
void reset_peak();

// The calls since logging was switched on: "aclrtMalloc", "Operation::Setup model_layers_3", ...
void set_logging(bool on);
std::vector<std::string> call_log();

// The n-th next call (0: the very next) of `call` (of any if empty) returns `status` instead of doing its work. A call
// that releases something does its work first.
void inject(const std::string& call, uint64_t n, int32_t status);
// The n-th next kernel fails; its stream tells when it is waited for.
void inject_async(uint64_t n, int32_t status);
void clear_faults();
bool fault_pending();
// Calls so far in which a fault could be injected.
uint64_t calls();

// For devices that are opened from now on. At first what ATB_SIM_SOC, ATB_SIM_VERSION, ATB_SIM_MEMORY and
// ATB_SIM_DEVICES say.
void set_soc(const std::string& name);
void set_version(const std::string& version);
void set_memory(uint64_t bytes);
// How many devices there are, 1 to 16. They have one memory and one account together.
void set_devices(uint32_t count);

// Device memory as the host may look at it, and back; null for an address that is none.
void* window(const void* device);
void* device_address(const void* window);

// Why a call was refused last.
std::string last_message();

}  // namespace atb::sim
