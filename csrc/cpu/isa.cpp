// SPDX-License-Identifier: Apache-2.0
#include "cpu/isa.h"

#include <array>
#include <cstdint>
#include <cstdlib>
#include <string>

#include "atb_core/error.h"

#if defined(__x86_64__)
#include <cpuid.h>
#if defined(__linux__)
#include <sys/syscall.h>
#include <unistd.h>
#endif
#elif defined(__aarch64__) && defined(__linux__)
#include <sys/auxv.h>
#endif

namespace atb_core::cpu {
namespace {

constexpr std::array kAll = {Isa::portable, Isa::neon,        Isa::neon_dot, Isa::neon_bf16,   Isa::avx2,
                             Isa::avx512,   Isa::avx512_bf16, Isa::amx,      Isa::amx_emulated};

#if defined(__x86_64__)

struct Registers {
  uint32_t eax = 0, ebx = 0, ecx = 0, edx = 0;
};

Registers cpuid(uint32_t leaf, uint32_t subleaf) {
  Registers r;
  if (!__get_cpuid_count(leaf, subleaf, &r.eax, &r.ebx, &r.ecx, &r.edx)) return {};
  return r;
}

constexpr bool bit(uint64_t word, int index) { return (word >> index) & 1; }

// Returns the register files that the operating system saves; a CPU feature without its state bits is unusable.
uint64_t os_state() {
  if (!bit(cpuid(1, 0).ecx, 27)) return 0;  // OSXSAVE
  uint32_t low = 0, high = 0;
  asm volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
  return (uint64_t{high} << 32) | low;
}

// Requests the 8 KiB tile state, which Linux grants on request only; without it the first tile load is a SIGILL.
bool request_amx() {
#if defined(__linux__) && defined(SYS_arch_prctl)
  constexpr int kArchReqXcompPerm = 0x1023, kXfeatureTileData = 18;
  return syscall(SYS_arch_prctl, kArchReqXcompPerm, kXfeatureTileData) == 0;
#else
  return false;
#endif
}

bool probe(Isa isa) {
  const uint64_t state = os_state();
  const Registers basic = cpuid(1, 0), extended = cpuid(7, 0);
  const bool ymm = (state & 0x6) == 0x6, zmm = (state & 0xe6) == 0xe6, tiles = (state & 0x60000) == 0x60000;
  const bool avx2 = ymm && bit(basic.ecx, 12) && bit(basic.ecx, 29) && bit(extended.ebx, 5);
  const bool avx512 =
      avx2 && zmm && bit(extended.ebx, 16) && bit(extended.ebx, 17) && bit(extended.ebx, 30) && bit(extended.ebx, 31);
  const bool bf16 = avx512 && bit(extended.ecx, 11) && bit(cpuid(7, 1).eax, 5);
  switch (isa) {
    case Isa::portable:
    case Isa::amx_emulated:
      return true;
    case Isa::neon:
    case Isa::neon_dot:
    case Isa::neon_bf16:
      return false;
    case Isa::avx2:
      return avx2;
    case Isa::avx512:
      return avx512;
    case Isa::avx512_bf16:
      return bf16;
    case Isa::amx:
      return bf16 && tiles && bit(extended.edx, 22) && bit(extended.edx, 24) && bit(extended.edx, 25) && request_amx();
  }
  return false;
}

#else

bool probe(Isa isa) {
#if defined(__aarch64__)
  if (isa == Isa::neon) return true;
#if defined(__linux__)
  // HWCAP_ASIMDDP, HWCAP2_I8MM and HWCAP2_BF16, which the headers of older systems lack.
  const bool dot = (getauxval(AT_HWCAP) >> 20 & 1) != 0;
  if (isa == Isa::neon_dot) return dot;
  if (isa == Isa::neon_bf16) return dot && (getauxval(AT_HWCAP2) >> 13 & 3) == 3;
#endif
#endif
  return isa == Isa::portable || isa == Isa::amx_emulated;
}

#endif

std::string known_names() {
  std::string text;
  for (Isa isa : kAll) text += (text.empty() ? "" : ", ") + std::string(name(isa));
  return text;
}

}  // namespace

std::string_view name(Isa isa) {
  switch (isa) {
    case Isa::portable:
      return "portable";
    case Isa::neon:
      return "neon";
    case Isa::neon_dot:
      return "neon_dot";
    case Isa::neon_bf16:
      return "neon_bf16";
    case Isa::avx2:
      return "avx2";
    case Isa::avx512:
      return "avx512";
    case Isa::avx512_bf16:
      return "avx512_bf16";
    case Isa::amx:
      return "amx";
    case Isa::amx_emulated:
      return "amx_emulated";
  }
  return "?";
}

std::optional<Isa> isa_from_name(std::string_view text) {
  for (Isa isa : kAll) {
    if (name(isa) == text) return isa;
  }
  return std::nullopt;
}

bool supported(Isa isa) {
  static const std::array<bool, kAll.size()> known = [] {
    std::array<bool, kAll.size()> result{};
    for (size_t i = 0; i < kAll.size(); ++i) result[i] = probe(kAll[i]);
    return result;
  }();
  return known[static_cast<size_t>(isa)];
}

std::vector<Isa> supported_isas() {
  std::vector<Isa> result;
  for (Isa isa : kAll) {
    if (supported(isa)) result.push_back(isa);
  }
  return result;
}

Isa best_isa() {
  Isa best = Isa::portable;
  for (Isa isa : kAll) {
    if (isa != Isa::amx_emulated && supported(isa)) best = isa;
  }
  return best;
}

Isa detect() {
  const char* wanted = std::getenv("ATB_CPU_ISA");
  if (wanted == nullptr || *wanted == '\0') return best_isa();
  const std::optional<Isa> isa = isa_from_name(wanted);
  if (!isa) fail("ATB_CPU_ISA=", wanted, " is not an instruction set level; known: ", known_names());
  if (!supported(*isa)) {
    fail("ATB_CPU_ISA=", wanted, " is not available on this machine; the best level here is ", name(best_isa()));
  }
  return *isa;
}

}  // namespace atb_core::cpu
