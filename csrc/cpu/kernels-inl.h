// SPDX-License-Identifier: Apache-2.0
// All kernels of one level, whose F16 the including file has chosen. Everything is in a namespace of the level's own:
// the linker must never take a function compiled for one level in place of another's.
#pragma once

// clang-format off: each uses what is above it
#include "cpu/math-inl.h"
#include "cpu/dispatch-inl.h"
#include "cpu/norm-inl.h"
#include "cpu/rope-inl.h"
#include "cpu/activation-inl.h"
#include "cpu/elewise-inl.h"
#include "cpu/softmax-inl.h"
#include "cpu/reduce-inl.h"
#include "cpu/cast-inl.h"
#include "cpu/moe-inl.h"
#include "cpu/cache-inl.h"
#include "cpu/attention_tile-inl.h"
#include "cpu/attention_load-inl.h"
#include "cpu/attention-inl.h"
// clang-format on

namespace atb_core::cpu::ATB_CPU_LEVEL {

constexpr KernelTable make_table() {
  return {rms_norm,          add_rms_norm,   rope,           activation,   elewise,
          softmax,           reduce,         cast,           topk_softmax, token_unpermute,
          reshape_and_cache, self_attention, paged_attention};
}

}  // namespace atb_core::cpu::ATB_CPU_LEVEL
