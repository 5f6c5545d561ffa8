// SPDX-License-Identifier: Apache-2.0
// y = x W^T + bias, the same bits on every instruction set level, for every number of rows and of threads.
//
// Order of accumulation of one output value, all in float32 with denormals flushed:
//   acc = 0
//   for each 32 elements of k, ascending (k is padded with zeros to a multiple of 32):
//     e = fused multiply-add chain from 0 over elements 0, 2, ..., 30
//     o = fused multiply-add chain from 0 over elements 1, 3, ..., 31
//     acc = acc + (e + o)
//   y = round(acc + bias)           (no addition when there is no bias)
// This is what one AMX tdpbf16ps does; the other levels follow it. The calling threads must flush denormals.
//
// Quantised weights (quant.h has q, s, m, d, e, c, b and zero): the row of x is cut into groups of 32 elements (64 for
// int8) that become integers i = round(x (127 / max |x|)) with the scale t = max |x| / 127. I is the exact sum of
// i (q - zero) over the group, and X that of i. One output value, in float32:
//   acc = 0
//   for each group, ascending:
//     int8:          acc = fma(I, t, acc)
//     halves:        acc = fma(I s, t, acc)                          with a minimum: fma(X, m, I s) for I s
//     super_32:      acc = fma(fma(X, -(e b), I (d c)), t, acc)
//     super_16:      acc = fma(fma(I', d c', I (d c)), t, acc)       I and I' of the halves of the group
//   y = round(acc + bias)           (int8: acc s instead of acc)
//
// x and weights of int8: the sum I over all of k is exact, and the bias is an int32 that is added to it modulo 2^32:
//   y = round(((I + bias) s) t)     s of the output, t of the row, if there is one; or y = I + bias, an int32
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "atb_core/types.h"
#include "cpu/isa.h"
#include "cpu/kernels/quant.h"
#include "cpu/worker.h"

namespace atb_core::cpu {

// Weight matrices [n, k] in the layout of pack(), one after another. The layout depends on the level they were packed
// for.
struct PackedWeight {
  DataType dtype = DataType::bf16;  // f32, f16 or bf16; or i8
  int64_t n = 0, k = 0;
  const std::byte* data = nullptr;  // 64-byte aligned
  int64_t count = 1;
  QuantFormat format = QuantFormat::none;  // if another one, dtype is that of a row which is read
  // If not empty: the matrix is in these pieces, one below the other, and has no data of its own.
  std::span<const PackedWeight> pieces = {};

  bool quantized() const { return format != QuantFormat::none || !pieces.empty(); }
  // One of them alone.
  PackedWeight matrix(int64_t index) const;
};

// The number of 16-column blocks of a matrix with n columns, and the bytes of one packed matrix.
int64_t packed_blocks(int64_t n);
size_t packed_bytes(Isa isa, DataType dtype, int64_t n, int64_t k);

// Packs the blocks [block_begin, block_end) of a contiguous row-major [n, k] matrix ([k, n] if src_is_kn)
// into dst, the start of the whole packed matrix. Threads may pack disjoint ranges at the same time; together
// they must cover [0, packed_blocks(n)). The padding is written, too.
void pack(Isa isa, const void* src, DataType dtype, int64_t n, int64_t k, bool src_is_kn, std::byte* dst,
          int64_t block_begin, int64_t block_end);

// Columns [begin, begin + count) of a weight and where they go. Ranges at multiples of 32 cost nothing extra.
struct LinearPart {
  PackedWeight weight;
  int64_t begin = 0, count = 0;
  const void* bias = nullptr;  // `count` values, or null
  DataType bias_dtype = DataType::bf16;
  void* out = nullptr;  // [m, count], rows out_ld elements apart
  DataType out_dtype = DataType::bf16;
  int64_t out_ld = 0;
  // Of int8: `count` scales of the outputs (null for a result of i32), and m of the rows or null.
  const float* scales = nullptr;
  const float* row_scales = nullptr;
};

// The largest k for which a sum of products of int8 fits into 32 bits.
inline constexpr int64_t kMaxIntegerK = 131071;

// One activation matrix [m, k], rows x_ld elements apart, times any number of parts. All weights have the k of x and
// its dtype or any quantised format, but no pieces.
struct LinearArgs {
  const void* x = nullptr;
  DataType dtype = DataType::bf16;
  int64_t m = 0, k = 0, x_ld = 0;
  std::span<const LinearPart> parts = {};
  // There are two parts, for which can_gate() holds, with the same out, a gate and what belongs to it: out is silu(gate)
  // times the other, both rounded to its dtype before.
  bool gated = false;
};

// Whether two parts can be computed together: they have the same format and number of columns, from multiples of 32 on.
bool can_gate(std::span<const LinearPart> parts);

// Whether that is faster. Up to so many rows the products wait for weights, which are read fastest as one stream, not as
// those of gate and of up in turns: one row took 1.02 of the time with both together.
constexpr bool gate_pays(int64_t m) { return m > 64; }

// Upper bound of what linear() needs for this many rows, whatever the parts of this format are.
ScratchSize linear_scratch(Isa isa, DataType dtype, int64_t m, int64_t k, QuantFormat format = QuantFormat::none);

// Uses worker.ticket and worker.sync(). No output may overlap x or another output.
void linear(Isa isa, const LinearArgs& args, const Worker& worker);

// Rows of x [m, k], in groups, times a matrix for each group: group g, the rows from ends[g - 1] (or 0) to ends[g], is
// multiplied by matrix g of the weight. All in one piece, all weights of the dtype and the k of x.
struct GroupedLinearArgs {
  const void* x = nullptr;
  int64_t m = 0;
  const int64_t* ends = nullptr;  // weight.count of them
  PackedWeight weight;
  const void* bias = nullptr;  // [count, n], or null
  DataType bias_dtype = DataType::bf16;
  void* out = nullptr;  // [m, n]
  DataType out_dtype = DataType::bf16;
};

// Whether `ends` cuts m rows into groups; if not, says so to worker.error. All threads find the same.
bool groups_fit(const int64_t* ends, int64_t count, int64_t m, const Worker& worker);

// Upper bound of what grouped_linear() needs for this many rows, however they are grouped.
ScratchSize grouped_linear_scratch(Isa isa, DataType dtype, int64_t m, int64_t k);

// groups_fit() must hold. Only matrices with rows are read. Uses worker.ticket and worker.sync(). A row has the bits
// that linear() gives it.
void grouped_linear(Isa isa, const GroupedLinearArgs& args, const Worker& worker);

// out[i, :] = row indices[i] of the weight as [n, k], contiguous, in the weight's dtype: an embedding lookup
// in a weight that is also used by linear(). A bad index is reported to worker.error and nothing is read for
// it. Rows of quantised weights are rounded to the dtype.
void gather_packed_rows(Isa isa, const PackedWeight& weight, const void* indices, DataType index_dtype, int64_t count,
                        void* out, const Worker& worker);

}  // namespace atb_core::cpu
