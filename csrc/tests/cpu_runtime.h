// SPDX-License-Identifier: Apache-2.0
// The CPU engine's runtime for tests.
#pragma once

#include <memory>

#include "cpu/engine/runtime.h"

namespace atb_core::test {

// All threads share even the smallest node unless `small_work` is set.
inline std::shared_ptr<Runtime> make_runtime(int threads = 2, double small_work = 0) {
  return std::make_shared<Runtime>(threads, cpu::Isa::portable, small_work);
}

}  // namespace atb_core::test
