// SPDX-License-Identifier: Apache-2.0
// Memory of the simulated device. Its addresses cannot be touched: a program that confuses device and host memory
// crashes here as it would there. The simulator itself sees the same memory through a second mapping, the window.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

namespace atb::sim {

// What the device has: the limit that was set, at most the addresses there are.
uint64_t capacity();

// Null when the device has no more.
void* allocate(size_t bytes);
// False when nothing was allocated at this address.
bool release(void* address);

bool is_device_address(const void* address);
// Whether all these bytes belong to one live allocation; else says why not.
bool is_live(const void* address, size_t bytes, std::string& why);

}  // namespace atb::sim
