// SPDX-License-Identifier: Apache-2.0
// The kernels of a level for quantised weights. The source file first defines QuantShapes, its tile shapes.
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

template <typename T, QuantLayout L>
constexpr LinearKernel kQuantKernel = {
    QuantShapes::kRowUnit,
    QuantShapes::kRows,
    sizeof(QuantRow<L>),
    16 << 10,
    QuantShapes::blocks,
    prepare_quant_row<T, L>,
    QuantShapes::multiply<L>,
    finish_quant<L>,
    QuantShapes::begin,
    QuantShapes::end,
    L.step,
    L.step_bytes(),
};

// Of x and weights of int8.
template <class Shapes>
constexpr LinearKernel kIntKernel = {
    Shapes::kRowUnit,
    Shapes::kRows,
    sizeof(QuantRow<kIntegers>),
    16 << 10,
    Shapes::blocks,
    prepare_int_row,
    Shapes::template multiply<kIntegers>,
    finish_ints,
    Shapes::begin,
    Shapes::end,
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

// Of x of a float type.
inline const LinearKernel* float_quant_kernel(DataType dtype, QuantFormat format) {
  if (dtype == DataType::bf16) return quant_kernel<Bf16>(format);
  if (dtype == DataType::f16) return quant_kernel<Half>(format);
  return dtype == DataType::f32 ? quant_kernel<float>(format) : nullptr;
}

// Of x of any type.
template <class Shapes = QuantShapes>
const LinearKernel* quant_kernel(DataType dtype, QuantFormat format) {
  return dtype == DataType::i8 ? &kIntKernel<Shapes> : float_quant_kernel(dtype, format);
}

}  // namespace
}  // namespace atb_core::cpu::ATB_CPU_LEVEL
