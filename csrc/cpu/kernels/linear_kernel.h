// SPDX-License-Identifier: Apache-2.0
// What linear.cpp (blocking, threads) needs from an instruction set level: three functions and their limits.
#pragma once

#include <cstddef>
#include <cstdint>

#include "atb_core/types.h"
#include "cpu/isa.h"
#include "cpu/kernels/quant.h"

namespace atb_core::cpu {

// Packed weights are [n/32][k/32][2][block step]: a pair of 16-column blocks interleaved by steps of 32 along
// k, so that a kernel working on a pair reads one ascending stream and a slice of k is one piece of memory
// that fills all sets of the L1 cache evenly. A block step holds 16 columns x 32 elements of k:
//   bf16, natural: [16 pairs (x[2j], x[2j+1])][16 columns]: the B tile of AMX. All levels but the next.
//   bf16, chains:  [8 words][even, odd chain][16 columns], a word being (low x[4j+2+c], high x[4j+c]) with
//                  c = 0 or 1: vdpbf16ps does two sequential FMAs, the high half first, so a word is two links
//                  of one chain.
//   f16, f32:      [32][16 columns].
//   quantised:     steps of 64 or 256 elements, see quant.h.
//   i8:            [16 words of 4 elements][16 columns], steps of 64 elements: as signed integers the other B tile of
//                  AMX, with 128 added for all other levels.
inline constexpr int64_t kBlockColumns = 16;
inline constexpr int64_t kStep = 32;
inline constexpr int64_t kPairBlocks = 2;

constexpr int64_t steps_of(int64_t k, int64_t step = kStep) { return (k + step - 1) / step; }
constexpr size_t block_step_bytes(DataType dtype) { return kBlockColumns * kStep * itemsize(dtype); }
constexpr size_t pair_bytes(DataType dtype, int64_t k) {
  return kPairBlocks * block_step_bytes(dtype) * static_cast<size_t>(steps_of(k));
}
constexpr bool has_chain_layout(Isa isa, DataType dtype) { return isa == Isa::avx512_bf16 && dtype == DataType::bf16; }

constexpr int integer_zero(Isa isa) { return isa == Isa::amx || isa == Isa::amx_emulated ? 0 : 128; }

// acc[rows][blocks * 16] (+)= x * w over `steps` steps.
struct TileJob {
  const std::byte* x;  // prepared rows: [step][row][row_bytes]
  int rows;            // rows stored (a multiple of the row unit)
  int blocks;          // 1, or the 2 of a pair
  const std::byte* w;  // the first block at the first step
  int64_t steps;
  float* acc;
  bool first;  // acc starts at zero
  // Software prefetch: `ahead` > 0: that many bytes ahead of w. Else `prefetch_lines` cache lines from
  // `prefetch` on in every step.
  size_t ahead;
  const std::byte* prefetch;
  int prefetch_lines;
};

// out[r][i] = round(acc[r][i] + bias[i]) for i < columns. With `scales`, acc[r][i] times scales[i]; acc may be changed.
// Sums of integers: acc holds int32, the bias too, and out[r][i] = round(scales[i] (acc[r][i] + bias[i]) row_scales[r]),
// or the int32 sums themselves. With a gate, out[r][i] = round(silu(g) u), where g is what the gate's sums become, rounded,
// and u what those of this job become. The gate has the same rows, columns and types.
struct FinishJob {
  const float* acc;
  int64_t acc_ld;
  int64_t rows, columns;
  const void* bias;
  DataType bias_dtype;
  void* out;
  DataType out_dtype;
  int64_t out_ld;
  const float* scales;
  const float* row_scales;
  const FinishJob* gate;
};

struct LinearKernel {
  int row_unit;      // 1, or 16 where rows come in tiles (fewer when there are fewer rows altogether)
  int max_rows;      // largest TileJob::rows
  size_t row_bytes;  // bytes of a step of prepared elements
  // The slice of a pair of blocks that stays in L1 while all rows pass over it.
  size_t slice_bytes;
  // How many blocks a tile of so many rows should have: 1 or 2.
  int (*blocks)(int rows);
  // Writes the steps of one row, `stride` bytes apart, zeros after element k.
  void (*prepare_row)(const void* x, int64_t k, std::byte* dst, size_t stride);
  void (*multiply)(const TileJob& job);
  void (*finish)(const FinishJob& job);
  // Called on each thread before and after its tiles; `unit` is the row unit in use.
  void (*begin)(int unit);
  void (*end)();
  // Elements of a step, and bytes of 16 columns of weights; 0: of the dtype.
  int64_t step = kStep;
  size_t step_bytes = 0;
  // multiply() from zero for several pairs of blocks, `pair_bytes` apart; the sums of each follow those of the one before.
  // Null where that is no faster.
  void (*multiply_pairs)(const TileJob& job, int pairs, size_t pair_bytes) = nullptr;

  int64_t steps(int64_t k) const { return steps_of(k, step); }
};

// Fetches a line of weights into L2. Fetches into L1 wait for each other: a core has 10 to 24 of them under way, which
// makes 11 GB/s, while L2 takes 20 (Zen 4).
inline void prefetch(const std::byte* line) { __builtin_prefetch(line, 0, 2); }

// The level must be supported() and dtype, of x, one of f32, f16, bf16; `format` is that of the weight. Or dtype is i8,
// that of x and the weight.
const LinearKernel& linear_kernel(Isa isa, DataType dtype, QuantFormat format = QuantFormat::none);

// One per source file; null where the level has nothing of its own for the dtype.
const LinearKernel* linear_kernel_portable(DataType dtype);
const LinearKernel* linear_kernel_neon(DataType dtype);
const LinearKernel* linear_kernel_neon_bf16(DataType dtype);
const LinearKernel* linear_kernel_avx2(DataType dtype);
const LinearKernel* linear_kernel_avx512(DataType dtype);
const LinearKernel* linear_kernel_avx512_bf16(DataType dtype);
const LinearKernel* linear_kernel_amx(DataType dtype);
const LinearKernel* linear_kernel_amx_emulated(DataType dtype);

// The same for quantised weights, and for x and weights of int8.
const LinearKernel* quant_kernel_portable(DataType dtype, QuantFormat format);
const LinearKernel* quant_kernel_neon(DataType dtype, QuantFormat format);
const LinearKernel* quant_kernel_neon_dot(DataType dtype, QuantFormat format);
const LinearKernel* quant_kernel_neon_bf16(DataType dtype, QuantFormat format);
const LinearKernel* quant_kernel_avx2(DataType dtype, QuantFormat format);
const LinearKernel* quant_kernel_avx512(DataType dtype, QuantFormat format);
const LinearKernel* quant_kernel_avx512_bf16(DataType dtype, QuantFormat format);
const LinearKernel* quant_kernel_amx(DataType dtype, QuantFormat format);
const LinearKernel* quant_kernel_amx_emulated(DataType dtype, QuantFormat format);

}  // namespace atb_core::cpu
