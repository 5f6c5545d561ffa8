// SPDX-License-Identifier: Apache-2.0
// The kernels of a level for quantised weights. The source file first defines kQuantRows, quant_blocks and
// multiply_quant, its tile shapes.
#pragma once

#include "cpu/kernels/linear_finish-inl.h"
#include "cpu/kernels/linear_finish_ints-inl.h"
#include "cpu/kernels/linear_quant-inl.h"

namespace atb_core::cpu::ATB_CPU_LEVEL {
namespace {

// The sum times the scale of the output, then as any other product.
template <QuantLayout L>
void finish_quant(const FinishJob& job) {
  if constexpr (L.scales == QuantScales::channels) {
    for (const FinishJob* each : {job.gate, &job}) {
      if (each == nullptr) continue;
      float* acc = const_cast<float*>(each->acc);
      for (int64_t r = 0; r < each->rows; ++r) {
        for (int64_t c = 0; c < each->columns; ++c) acc[r * each->acc_ld + c] *= each->scales[c];
      }
    }
  }
  finish(job);
}

inline void no_quant_setup(int) {}
inline void no_quant_teardown() {}

template <typename T, QuantLayout L>
constexpr LinearKernel kQuantKernel = {
    1,
    kQuantRows,
    sizeof(QuantRow<L>),
    16 << 10,
    quant_blocks,
    prepare_quant_row<T, L>,
    multiply_quant<L>,
    finish_quant<L>,
    no_quant_setup,
    no_quant_teardown,
    L.step,
    L.step_bytes(),
};

// Of x and weights of int8.
constexpr LinearKernel kIntKernel = {
    1,
    kQuantRows,
    sizeof(QuantRow<kIntegers>),
    16 << 10,
    quant_blocks,
    prepare_int_row,
    multiply_quant<kIntegers>,
    finish_ints,
    no_quant_setup,
    no_quant_teardown,
    kIntegers.step,
    kIntegers.step_bytes(),
};

template <typename T>
const LinearKernel* quant_kernel(QuantFormat format) {
  switch (format) {
    case QuantFormat::none:
      return nullptr;
    case QuantFormat::int8:
      return &kQuantKernel<T, kChannels8>;
    case QuantFormat::q4_0:
      return &kQuantKernel<T, kHalves4>;
    case QuantFormat::int4:
    case QuantFormat::q4_1:
      return &kQuantKernel<T, kHalves4Min>;
    case QuantFormat::q5_0:
      return &kQuantKernel<T, kHalves5>;
    case QuantFormat::q5_1:
      return &kQuantKernel<T, kHalves5Min>;
    case QuantFormat::q8_0:
    case QuantFormat::iq4_nl:
      return &kQuantKernel<T, kHalves8>;
    case QuantFormat::q3_k:
      return &kQuantKernel<T, kSuper3>;
    case QuantFormat::q4_k:
      return &kQuantKernel<T, kSuper4>;
    case QuantFormat::q5_k:
      return &kQuantKernel<T, kSuper5>;
    case QuantFormat::q6_k:
      return &kQuantKernel<T, kSuper6>;
  }
  return nullptr;
}

// Of the dtype of x.
inline const LinearKernel* quant_kernel(DataType dtype, QuantFormat format) {
  if (dtype == DataType::bf16) return quant_kernel<Bf16>(format);
  if (dtype == DataType::f16) return quant_kernel<Half>(format);
  if (dtype == DataType::i8) return &kIntKernel;
  return dtype == DataType::f32 ? quant_kernel<float>(format) : nullptr;
}

}  // namespace
}  // namespace atb_core::cpu::ATB_CPU_LEVEL
