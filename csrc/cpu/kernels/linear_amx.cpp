// SPDX-License-Identifier: Apache-2.0
#define ATB_CPU_LEVEL amx
#include "cpu/kernels/vec_avx512.h"
// The vector types come first.
#include "cpu/kernels/ints_avx512.h"
#include "cpu/kernels/linear_amx-inl.h"

namespace atb_core::cpu {
namespace amx {
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

  // Accumulators and activations get as many rows as there are (fewer rows, less work); weights have 16.
  static void configure(int rows) {
    Config config;
    for (int t = 0; t < 8; ++t) {
      config.row_bytes[t] = kTileRowBytes;
      config.rows[t] = static_cast<uint8_t>(t < 6 ? rows : kTileRows);
    }
    asm volatile("ldtilecfg %0" ::"m"(config) : "memory");
  }
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
}  // namespace amx

const LinearKernel* linear_kernel_amx(DataType dtype) {
  if (dtype == DataType::i8) return &amx::kIntTileKernel<amx::IntInstructions>;
  return dtype == DataType::bf16 ? &amx::kTileKernel<amx::Instructions> : nullptr;
}

}  // namespace atb_core::cpu
