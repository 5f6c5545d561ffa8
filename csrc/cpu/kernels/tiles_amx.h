// SPDX-License-Identifier: Apache-2.0
// The instructions of AMX as a type Tiles. Include after the level's vec_*.h.
#pragma once

#include <cstddef>
#include <cstdint>

#include "cpu/kernels/tiles.h"

namespace atb_core::cpu::ATB_CPU_LEVEL {
namespace {

// The instructions, spelled out: the intrinsics of GCC 12 tell the compiler neither that a tile load reads
// memory nor that the configuration is read, so it may drop or move the stores before them. Here every
// operation is ordered with memory, and the configuration is an operand.
struct Instructions {
  struct alignas(64) Config {
    uint8_t palette = 1, start_row = 0, reserved[14] = {};
    uint16_t row_bytes[16] = {};
    uint8_t rows[16] = {};
  };

  // Accumulators (0 to 3) and activations (4, 5) get as many rows as there are: fewer rows, less work. Activations have so
  // many bytes in a row, weights (6, 7) what belongs to them.
  static void configure(int rows, int depth) {
    Config config;
    for (int t = 0; t < 8; ++t) {
      config.row_bytes[t] = static_cast<uint16_t>(t == 4 || t == 5 ? depth : int{kTileRowBytes});
      config.rows[t] = static_cast<uint8_t>(t < 6 ? rows : depth / 4);
    }
    asm volatile("ldtilecfg %0" ::"m"(config) : "memory");
  }
  static void configure(int rows) { configure(rows, kTileRowBytes); }
  static void release() { asm volatile("tilerelease" ::: "memory"); }

  template <int T>
  static void zero() {
    asm volatile("tilezero %%tmm%c0" ::"i"(T));
  }
  template <int T>
  static void load(const std::byte* p, size_t stride) {
    asm volatile("tileloadd (%0,%1,1), %%tmm%c2" ::"r"(p), "r"(stride), "i"(T) : "memory");
  }
  template <int T>
  static void store(std::byte* p, size_t stride) {
    asm volatile("tilestored %%tmm%c2, (%0,%1,1)" ::"r"(p), "r"(stride), "i"(T) : "memory");
  }
  template <int C, int A, int B>
  static void dot() {
    asm volatile("tdpbf16ps %%tmm%c2, %%tmm%c1, %%tmm%c0" ::"i"(C), "i"(A), "i"(B));
  }
};

struct IntInstructions : Instructions {
  template <int C, int A, int B>
  static void dot() {
    asm volatile("tdpbssd %%tmm%c2, %%tmm%c1, %%tmm%c0" ::"i"(C), "i"(A), "i"(B));
  }
};

}  // namespace
}  // namespace atb_core::cpu::ATB_CPU_LEVEL
