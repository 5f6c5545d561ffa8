// SPDX-License-Identifier: Apache-2.0
#include "atb/device_table.h"

#include <algorithm>

#include "atb_core/error.h"

namespace atb_core::ascend {
namespace {

constexpr uint64_t operator""_gib(unsigned long long count) { return static_cast<uint64_t>(count) << 30; }

// "Ascend910B2" is an A2 chip, but one of the first generation calls itself "Ascend910B" and nothing more.
constexpr std::string_view kFirst910B = "Ascend910B";

std::string known_devices() {
  std::string text;
  for (const DeviceInfo& device : device_table()) {
    if (!device.supported) continue;
    text += (text.empty() ? "" : ", ") + std::string(device.soc_prefix) + "* (" + device.name + ")";
  }
  return text;
}

const DeviceInfo* longest_match(std::string_view soc_name) {
  const DeviceInfo* found = nullptr;
  for (const DeviceInfo& device : device_table()) {
    const std::string_view prefix = device.soc_prefix;
    if (!soc_name.starts_with(prefix) || (prefix == kFirst910B && soc_name == kFirst910B)) continue;
    if (found == nullptr || prefix.size() > std::string_view(found->soc_prefix).size()) found = &device;
  }
  return found;
}

const char* why_not(Family family) {
  return family == Family::ascend910a
             ? "it has no bfloat16, keeps its caches in another layout, and was never tried"
             : "ATB hands its work to other operations there (aclnn), which this version does not use";
}

// Limits of the tiling of paged attention.
constexpr int64_t kBlockStep = 16;
constexpr int64_t kTile = 16384;     // elements of a head in a block
constexpr int64_t kLongHead = 256;   // up to here a block is one tile
constexpr int64_t kLongBlock = 128;  // the largest block for longer heads

// Returns the largest block for heads of keys and values; `kTile` stands for any.
int64_t most_slots(const DeviceInfo& device, const CacheBlocks& cache) {
  const int64_t head = std::max(cache.k_head, cache.v_head);
  if (cache.several) return std::min(kLongBlock, kTile / head);
  if (device.nz) return kTile / head;
  if (head > kLongHead) return kLongBlock;
  return cache.k_head == cache.v_head ? kTile / head : kTile;
}

}  // namespace

// Properties are from the public documentation of ATB's operations; memory is from public data sheets, for one chip: an
// Atlas 300I Duo has two chips and at most 96 GiB, an A3 package has two dies of 64 GiB.
const std::vector<DeviceInfo>& device_table() {
  static const std::vector<DeviceInfo> kDevices = {
      {.soc_prefix = "Ascend910B",
       .family = Family::ascend910b,
       .name = "Atlas A2",
       .bf16 = true,
       .nz = false,
       .transposes = true,
       .max_head_dim = 576,
       .device_lengths = false,
       .lccl = true,
       .memory = 64_gib,
       .supported = true},
      {.soc_prefix = "Ascend910_93",
       .family = Family::ascend910b,
       .name = "Atlas A3",
       .bf16 = true,
       .nz = false,
       .transposes = true,
       .max_head_dim = 576,
       .device_lengths = false,
       .lccl = true,
       .memory = 64_gib,
       .supported = true},
      {.soc_prefix = "Ascend310P",
       .family = Family::ascend310p,
       .name = "Atlas 300I Duo",
       .bf16 = false,
       .nz = true,
       .transposes = false,
       .max_head_dim = 256,
       .device_lengths = true,
       .lccl = false,
       .memory = 48_gib,
       .supported = true},
      {.soc_prefix = "Ascend910",
       .family = Family::ascend910a,
       .name = "Atlas A1",
       .bf16 = false,
       .nz = true,
       .transposes = false,
       .max_head_dim = 256,
       .device_lengths = true,
       .lccl = false,
       .memory = 32_gib,
       .supported = false},
      // Both names are in use for this generation.
      {.soc_prefix = "Ascend950",
       .family = Family::ascend950,
       .name = "Atlas A5",
       .bf16 = true,
       .nz = false,
       .transposes = false,
       .max_head_dim = 256,
       .device_lengths = false,
       .lccl = false,
       .memory = 128_gib,
       .supported = false},
      {.soc_prefix = "Ascend910_95",
       .family = Family::ascend950,
       .name = "Atlas A5",
       .bf16 = true,
       .nz = false,
       .transposes = false,
       .max_head_dim = 256,
       .device_lengths = false,
       .lccl = false,
       .memory = 128_gib,
       .supported = false},
  };
  return kDevices;
}

const DeviceInfo& find_device(std::string_view soc_name) {
  const DeviceInfo* found = longest_match(soc_name);
  if (found == nullptr) {
    fail("this backend does not know the device '", soc_name, "'; it runs on ", known_devices());
  }
  if (!found->supported) {
    fail("this backend does not run on '", soc_name, "' (", found->name, "): ", why_not(found->family), "; it runs on ",
         known_devices());
  }
  return *found;
}

std::string block_problem(const DeviceInfo& device, const CacheBlocks& cache) {
  const int64_t head = std::max(cache.k_head, cache.v_head), block = cache.block_size;
  if (cache.several && head > kLongHead) {
    return "heads of " + std::to_string(head) + "; " + device.name + " takes at most " + std::to_string(kLongHead) +
           " for several new tokens of a sequence";
  }
  const std::string who = "blocks of " + std::to_string(block) + " slots";
  if (block <= 0 || block % kBlockStep != 0) {
    return who + "; " + device.name + " takes multiples of " + std::to_string(kBlockStep);
  }
  // Heads of exactly this size also have a kernel that cuts larger blocks into tiles.
  const bool cut = !cache.several && !device.nz && cache.k_head == kLongHead && cache.v_head == kLongHead;
  if (cut && block % kLongBlock == 0) return "";
  const int64_t most = most_slots(device, cache) / kBlockStep * kBlockStep;
  if (block <= most) return "";
  std::string text =
      who + "; " + device.name + " takes at most " + std::to_string(most) + " for heads of " + std::to_string(head);
  if (cut) text += ", or a multiple of " + std::to_string(kLongBlock);
  return cache.several ? text + " and several new tokens" : text;
}

}  // namespace atb_core::ascend
