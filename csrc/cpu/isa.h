// SPDX-License-Identifier: Apache-2.0
// Instruction set levels of the kernels. All levels give the same bits; they differ in speed only.
#pragma once

#include <optional>
#include <string_view>
#include <vector>

namespace atb_core::cpu {

// Levels in ascending order of preference. aarch64 always has `neon`; `neon_dot` adds dot products of bytes, `neon_bf16`
// BF16 and I8MM. `avx2` includes FMA and F16C; `avx512` is F+BW+DQ+VL, `avx512_bf16` BF16 and VNNI. Each later level of an
// architecture includes the earlier ones. `amx_emulated` runs the AMX kernels on tile operations written in plain C++: it
// is for tests on machines without AMX and is never selected automatically.
enum class Isa { portable, neon, neon_dot, neon_bf16, avx2, avx512, avx512_bf16, amx, amx_emulated };

std::string_view name(Isa isa);
std::optional<Isa> isa_from_name(std::string_view text);

// Returns true if this build contains the level and this machine can run it. For amx this requests permission to use
// the tile registers from the operating system, once per process.
bool supported(Isa isa);

// Returns all supported levels, ascending; `amx_emulated` (always supported) is the last.
std::vector<Isa> supported_isas();

// Returns the best supported level.
Isa best_isa();

// Returns the level that ATB_CPU_ISA names, else the best one. Throws Error if the variable names an unknown level or
// one that this machine lacks.
Isa detect();

}  // namespace atb_core::cpu
