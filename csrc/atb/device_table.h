// SPDX-License-Identifier: Apache-2.0
// What the Ascend devices that this backend knows can do.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace atb_core::ascend {

// Devices that behave alike: A2/A3 (910B, 910_93), 300I Duo and its relatives (310P), A1 (910A), A5 (950).
enum class Family { ascend910b, ascend310p, ascend910a, ascend950 };

struct DeviceInfo {
  const char* soc_prefix;  // of what the driver calls the chip
  Family family;
  const char* name;        // what people call it
  bool bf16;               // has bfloat16
  bool nz;                 // keeps matrices and caches in FRACTAL_NZ
  bool transposes;         // some matrix products are faster by the weight's transpose
  int64_t max_head_size;   // of attention
  int64_t token_multiple;  // of the tokens that SelfAttention takes at once
  bool device_lengths;     // PagedAttention reads its lengths on the device
  bool lccl;               // has LCCL beside HCCL
  uint64_t memory;         // of the largest model, bytes
  bool supported;          // whether this backend runs there
};

const std::vector<DeviceInfo>& device_table();

// The device that the driver calls `soc_name`. Throws Error that lists the known ones for a stranger, and says why for
// one that is known and not supported.
const DeviceInfo& find_device(std::string_view soc_name);

}  // namespace atb_core::ascend
