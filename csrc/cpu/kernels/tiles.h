// SPDX-License-Identifier: Apache-2.0
// Sizes of AMX's tile registers. A source file defines ATB_CPU_LEVEL first.
#pragma once

#include <cstddef>

namespace atb_core::cpu::ATB_CPU_LEVEL {
namespace {

inline constexpr size_t kTileRowBytes = 64;
inline constexpr size_t kTileBytes = 1024;  // of a tile of 16 rows
inline constexpr int kTileRows = 16;

}  // namespace
}  // namespace atb_core::cpu::ATB_CPU_LEVEL
