// SPDX-License-Identifier: Apache-2.0
#define ATB_CPU_LEVEL avx2
// clang-format off: the vector type comes first
#include "cpu/kernels/vec_avx2.h"
#include "cpu/kernels/kernels-inl.h"
// clang-format on

namespace atb_core::cpu {

const KernelTable& avx2_kernels(Isa isa) {
  return isa == Isa::amx_emulated ? avx2::kTable<Isa::amx_emulated> : avx2::kTable<Isa::avx2>;
}

}  // namespace atb_core::cpu
