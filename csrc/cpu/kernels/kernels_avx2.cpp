// SPDX-License-Identifier: Apache-2.0
#define ATB_CPU_LEVEL avx2
// clang-format off: the vector type comes first
#include "cpu/kernels/vec_avx2.h"
#include "cpu/kernels/kernels-inl.h"
// clang-format on

namespace atb_core::cpu {

constinit const KernelTable kAvx2Kernels = avx2::make_table();

}  // namespace atb_core::cpu
