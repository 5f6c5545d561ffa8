// SPDX-License-Identifier: Apache-2.0
// Memory of the simulated device. Its addresses cannot be accessed: a program that confuses device and host memory
// crashes here as on a device. The simulator accesses the same memory through a second mapping, the window.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

namespace atb::sim {

// Returns the memory of the device: the limit that was set, at most the reserved addresses.
uint64_t capacity();

// Returns null if the device has no memory left.
void* allocate(size_t bytes);
// Returns false if nothing was allocated at this address.
bool release(void* address);

bool is_device_address(const void* address);
// Returns true if all these bytes belong to one live allocation; otherwise explains why not.
bool is_live(const void* address, size_t bytes, std::string& why);

}  // namespace atb::sim
