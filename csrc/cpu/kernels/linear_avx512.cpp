// SPDX-License-Identifier: Apache-2.0
#define ATB_CPU_LEVEL avx512
#include "cpu/kernels/vec_avx512.h"
// The vector type comes first.
#include "cpu/kernels/linear_avx512-inl.h"

namespace atb_core::cpu {

const LinearKernel* linear_kernel_avx512(DataType dtype) {
  switch (dtype) {
    case DataType::bf16:
      return &avx512::kKernel<avx512::Pairs>;
    case DataType::f16:
      return &avx512::kKernel<avx512::Scalars<Half>>;
    case DataType::f32:
      return &avx512::kKernel<avx512::Scalars<float>>;
    default:
      return nullptr;
  }
}

}  // namespace atb_core::cpu
