// SPDX-License-Identifier: Apache-2.0
#include "cpu/isa.h"

#include <cstdlib>
#include <string>

#include "check.h"

using namespace atb_core::cpu;

namespace {

// Sets ATB_CPU_ISA as long as it lives.
struct Forced {
  explicit Forced(std::string_view level) { setenv("ATB_CPU_ISA", std::string(level).c_str(), 1); }
  ~Forced() { unsetenv("ATB_CPU_ISA"); }
};

}  // namespace

TEST(a_level_is_forced_by_its_name) {
  for (Isa isa : supported_isas()) {
    CHECK(isa_from_name(name(isa)) == isa);
    const Forced forced(name(isa));
    CHECK(detect() == isa);
  }
  unsetenv("ATB_CPU_ISA");
  CHECK(detect() == best_isa());
}

TEST(a_level_that_is_unknown_or_missing_is_an_error) {
  {
    const Forced forced("avx3");
    CHECK_THROWS(detect(), "avx3 is not an instruction set level; known: portable, neon, neon_dot, neon_bf16, avx2");
  }
  for (Isa isa : {Isa::neon, Isa::neon_dot, Isa::neon_bf16, Isa::avx2, Isa::avx512, Isa::avx512_bf16, Isa::amx}) {
    if (supported(isa)) continue;
    const Forced forced(name(isa));
    CHECK_THROWS(detect(), "the best level here is " + std::string(name(best_isa())));
  }
}

// Emulated processors are known; CMakeLists.txt says what their best level is.
TEST(the_best_level_is_that_of_the_processor) {
  if (const char* best = std::getenv("ATB_TEST_BEST_ISA")) CHECK(name(best_isa()) == best);
  CHECK(supported_isas().front() == Isa::portable);
  CHECK(supported_isas().back() == Isa::amx_emulated);
}

TEST_MAIN()
