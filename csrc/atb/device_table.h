// SPDX-License-Identifier: Apache-2.0
// The table of Ascend devices and their properties.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace atb_core::ascend {

// Devices that behave alike: A2/A3 (910B, 910_93), 300I Duo and its relatives (310P), A1 (910A), A5 (950).
enum class Family { ascend910b, ascend310p, ascend910a, ascend950 };

struct DeviceInfo {
  const char* soc_prefix;  // prefix of the driver's name of the chip
  Family family;
  const char* name;      // the common name
  bool bf16;             // has bfloat16
  bool nz;               // keeps matrices and caches in FRACTAL_NZ
  bool transposes;       // some matrix products are faster with a transposed weight
  int64_t max_head_dim;  // the largest head_dim of attention
  bool device_lengths;   // PagedAttention reads its lengths on the device
  bool lccl;             // has LCCL beside HCCL
  uint64_t memory;       // of the largest model, bytes
  bool supported;        // this backend runs on it
};

const std::vector<DeviceInfo>& device_table();

// Returns the device that the driver calls `soc_name`. Throws Error with the known names for an unknown one, and with
// the reason for a device that is not supported.
const DeviceInfo& find_device(std::string_view soc_name);

// A paged cache, and what reads it.
struct CacheBlocks {
  int64_t k_head, v_head;  // elements of a head of keys and of values
  int64_t block_size;      // slots of a block
  bool several = false;    // attention of several new tokens of a sequence (CALC_TYPE_SPEC)
};

// Returns why paged attention on the device does not take such a cache, "" if it does.
std::string block_problem(const DeviceInfo& device, const CacheBlocks& cache);

}  // namespace atb_core::ascend
