// SPDX-License-Identifier: Apache-2.0
#define ATB_CPU_LEVEL neon
// clang-format off: the vector type comes first
#include "cpu/kernels/vec_neon.h"
#include "cpu/kernels/kernels-inl.h"
// clang-format on

namespace atb_core::cpu {

const KernelTable& neon_kernels(Isa isa) {
  return isa == Isa::amx_emulated ? neon::kTable<Isa::amx_emulated> : neon::kTable<Isa::neon>;
}

}  // namespace atb_core::cpu
