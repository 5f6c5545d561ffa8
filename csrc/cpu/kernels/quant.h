// SPDX-License-Identifier: Apache-2.0
// Weights of 8 bits and fewer: their formats, and the layouts in which kernels read them.
//
// A format says how rows come (blocks as a file has them, or floats to quantise), a layout how they are packed. Every
// layout has unsigned integers q in steps of 64 or 256 elements of k, and scales beside them:
//   channels     w = s (q - 128), one s (f32) for each output; it is applied to the finished sum
//   halves       w = s (q - zero) or s q + m; s and m (f16) for each group of 32 or 64
//   super_32     w = d c q - e b; d and e (f16) for 256 elements, c and b (u8) for 32
//   super_16     w = d c (q - zero); d (f16) for 256 elements, c (i8) for 16
//   integers     w = q - 128 or, with AMX, q: an int8 itself; such a matrix has no format but the dtype i8
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string_view>

#include "atb_core/types.h"
#include "cpu/isa.h"

namespace atb_core::cpu {

// `int8` and `int4` are made of floats: int8 with a scale for each output (symmetric, -127..127), int4 with scale and
// minimum for groups of 32. The others are blocks of GGUF under its names. `none`: a float type.
enum class QuantFormat : uint8_t {
  none,
  int8,
  int4,
  q4_0,
  q4_1,
  q5_0,
  q5_1,
  q8_0,
  q3_k,
  q4_k,
  q5_k,
  q6_k,
  iq4_nl,
};

enum class QuantScales : uint8_t { channels, halves, super_32, super_16, integers };

struct QuantLayout {
  QuantScales scales;
  int bits;      // of q: 4, 5, 6 or 8
  int zero;      // what is subtracted from q
  bool minimum;  // halves: w = s q + m
  int step;      // elements of a step: 64 or 256
  int block;     // elements of a block of the format's rows, 0 if rows are floats
  int block_bytes;

  bool operator==(const QuantLayout&) const = default;
  // Bytes of 16 columns of a step: low bits, further bits, scales.
  constexpr size_t low_bytes() const { return static_cast<size_t>(step) * (bits == 8 ? 16 : 8); }
  constexpr size_t high_bytes() const { return bits == 8 ? 0 : static_cast<size_t>(step) * 2 * (bits - 4); }
  constexpr size_t scale_bytes() const {
    switch (scales) {
      case QuantScales::channels:
      case QuantScales::integers:
        return 0;
      case QuantScales::halves:
        return static_cast<size_t>(step) / 32 * 32 * (minimum ? 2 : 1);
      case QuantScales::super_32:
        return 320;
      case QuantScales::super_16:
        return 288;
    }
    return 0;
  }
  constexpr size_t step_bytes() const { return align_up(low_bytes() + high_bytes() + scale_bytes()); }
};

inline constexpr QuantLayout kChannels8 = {QuantScales::channels, 8, 128, false, 64, 0, 0};
inline constexpr QuantLayout kHalves4 = {QuantScales::halves, 4, 8, false, 64, 32, 18};
inline constexpr QuantLayout kHalves4Min = {QuantScales::halves, 4, 0, true, 64, 32, 20};
inline constexpr QuantLayout kHalves5 = {QuantScales::halves, 5, 16, false, 64, 32, 22};
inline constexpr QuantLayout kHalves5Min = {QuantScales::halves, 5, 0, true, 64, 32, 24};
inline constexpr QuantLayout kHalves8 = {QuantScales::halves, 8, 128, false, 64, 32, 34};
inline constexpr QuantLayout kSuper4 = {QuantScales::super_32, 4, 0, false, 256, 256, 144};
inline constexpr QuantLayout kSuper5 = {QuantScales::super_32, 5, 0, false, 256, 256, 176};
inline constexpr QuantLayout kSuper6 = {QuantScales::super_16, 6, 32, false, 256, 256, 210};
inline constexpr QuantLayout kIntegers = {QuantScales::integers, 8, 128, false, 64, 0, 0};
inline constexpr QuantLayout kSuper3 = {QuantScales::super_16, 4, 4, false, 256, 256, 110};

// Returns the layout of a format other than `none`.
constexpr QuantLayout quant_layout(QuantFormat format) {
  switch (format) {
    case QuantFormat::int8:
    case QuantFormat::none:
      break;
    case QuantFormat::int4: {
      QuantLayout layout = kHalves4Min;
      layout.block = layout.block_bytes = 0;
      return layout;
    }
    case QuantFormat::q4_0:
      return kHalves4;
    case QuantFormat::q4_1:
      return kHalves4Min;
    case QuantFormat::q5_0:
      return kHalves5;
    case QuantFormat::q5_1:
      return kHalves5Min;
    case QuantFormat::q8_0:
      return kHalves8;
    case QuantFormat::q3_k:
      return kSuper3;
    case QuantFormat::q4_k:
      return kSuper4;
    case QuantFormat::q5_k:
      return kSuper5;
    case QuantFormat::q6_k:
      return kSuper6;
    case QuantFormat::iq4_nl: {
      QuantLayout layout = kHalves8;
      layout.block_bytes = 18;
      return layout;
    }
  }
  return kChannels8;
}

std::string_view name(QuantFormat format);
std::optional<QuantFormat> quant_format_from_name(std::string_view text);

constexpr int64_t quant_steps(const QuantLayout& layout, int64_t k) { return (k + layout.step - 1) / layout.step; }

// Bytes of a packed matrix [n, k], with the scales of its outputs behind the steps.
size_t quant_packed_bytes(QuantFormat format, int64_t n, int64_t k);
// Returns the scales of the outputs of a packed matrix of the format int8.
const float* quant_channel_scales(const std::byte* data, QuantFormat format, int64_t n, int64_t k);

// Bytes of a row of k elements in the format's blocks. k must be a multiple of the block.
size_t quant_row_bytes(QuantFormat format, int64_t k);

// Packs the blocks of 16 columns [block_begin, block_end) of a matrix [n, k] whose rows are blocks of the format.
void quant_pack(QuantFormat format, const void* src, int64_t n, int64_t k, std::byte* dst, int64_t block_begin,
                int64_t block_end);

// The same for the formats that are made of floats (int8, int4). Returns false if a value is not finite, or a scale too
// large for its type.
bool quantize_pack(QuantFormat format, const void* src, DataType dtype, int64_t n, int64_t k, std::byte* dst,
                   int64_t block_begin, int64_t block_end);

// The same for a matrix of int8, [n, k] or [k, n], without any scales: its bytes, its packing, a row read back. `zero`
// stands for 0: 128, or 0 where integers are signed.
size_t int_packed_bytes(int64_t n, int64_t k);
void int_pack(const int8_t* src, int64_t n, int64_t k, bool src_is_kn, int zero, std::byte* dst, int64_t block_begin,
              int64_t block_end);
void int_row(const std::byte* data, int64_t k, int64_t row, int zero, int8_t* out);

// Writes row `row` of a packed matrix to `out`, k floats.
void quant_row(QuantFormat format, const std::byte* data, int64_t n, int64_t k, int64_t row, float* out);

}  // namespace atb_core::cpu
