// SPDX-License-Identifier: Apache-2.0
#define ATB_CPU_LEVEL neon
// clang-format off: the vector type comes first
#include "cpu/kernels/vec_neon.h"
#include "cpu/kernels/kernels-inl.h"
// clang-format on

namespace atb_core::cpu {

const KernelTable& neon_kernels(Isa isa) {
  switch (isa) {
    case Isa::neon_bf16:
      return neon::kTable<Isa::neon_bf16>;
    case Isa::amx_emulated:
      return neon::kTable<Isa::amx_emulated>;
    default:  // products of attention are floats: with those of bytes there is nothing else
      return neon::kTable<Isa::neon>;
  }
}

}  // namespace atb_core::cpu
