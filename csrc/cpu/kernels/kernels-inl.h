// SPDX-License-Identifier: Apache-2.0
// All kernels of one level, whose F16 the including file has chosen. Everything is in a namespace of the level's own:
// the linker must never take a function compiled for one level in place of another's.
#pragma once

// clang-format off: each uses what is above it
#include "cpu/kernels/math-inl.h"
#include "cpu/kernels/dispatch-inl.h"
#include "cpu/kernels/norm-inl.h"
#include "cpu/kernels/rope-inl.h"
#include "cpu/kernels/activation-inl.h"
#include "cpu/kernels/elewise-inl.h"
#include "cpu/kernels/softmax-inl.h"
#include "cpu/kernels/reduce-inl.h"
#include "cpu/kernels/cast-inl.h"
#include "cpu/kernels/int8-inl.h"
#include "cpu/kernels/quantize-inl.h"
#include "cpu/kernels/moe-inl.h"
#include "cpu/kernels/lora-inl.h"
#include "cpu/kernels/cache_int8-inl.h"
#include "cpu/kernels/attention_pack-inl.h"
#include "cpu/kernels/cache_packed-inl.h"
#include "cpu/kernels/cache-inl.h"
#include "cpu/kernels/attention_weigh-inl.h"
#include "cpu/kernels/attention_tile-inl.h"
#include "cpu/kernels/attention-inl.h"
// clang-format on

namespace atb_core::cpu::ATB_CPU_LEVEL {

template <Isa isa>
inline constexpr KernelTable kTable = {rms_norm,
                                       add_rms_norm,
                                       layer_norm,
                                       rope,
                                       activation,
                                       elewise,
                                       softmax,
                                       reduce,
                                       cast,
                                       topk_softmax,
                                       token_unpermute,
                                       lora,
                                       quantize,
                                       dynamic_quant,
                                       reshape_and_cache<isa>,
                                       self_attention<isa>,
                                       paged_attention<isa>};

}  // namespace atb_core::cpu::ATB_CPU_LEVEL
