// SPDX-License-Identifier: Apache-2.0
#define ATB_CPU_LEVEL portable
// clang-format off: the vector type comes first
#include "cpu/kernels/vec_portable.h"
#include "cpu/kernels/kernels-inl.h"
// clang-format on

namespace atb_core::cpu {

const KernelTable& portable_kernels(Isa isa) {
  return isa == Isa::amx_emulated ? portable::kTable<Isa::amx_emulated> : portable::kTable<Isa::portable>;
}

}  // namespace atb_core::cpu
