// SPDX-License-Identifier: Apache-2.0
#define ATB_CPU_LEVEL avx512
// clang-format off: the vector type comes first
#include "cpu/kernels/vec_avx512.h"
#include "cpu/kernels/kernels-inl.h"
// clang-format on

namespace atb_core::cpu {

constinit const KernelTable kAvx512Kernels = avx512::make_table();

}  // namespace atb_core::cpu
