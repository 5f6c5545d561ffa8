// SPDX-License-Identifier: Apache-2.0
#define ATB_CPU_LEVEL avx512
// clang-format off: the vector type comes first
#include "cpu/kernels/vec_avx512.h"
#include "cpu/kernels/kernels-inl.h"
// clang-format on

namespace atb_core::cpu {

const KernelTable& avx512_kernels(Isa isa) {
  switch (isa) {
    case Isa::avx512_bf16:
      return avx512::kTable<Isa::avx512_bf16>;
    case Isa::amx:
      return avx512::kTable<Isa::amx>;
    case Isa::amx_emulated:
      return avx512::kTable<Isa::amx_emulated>;
    default:
      return avx512::kTable<Isa::avx512>;
  }
}

}  // namespace atb_core::cpu
