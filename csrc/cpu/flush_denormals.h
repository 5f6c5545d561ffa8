// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

#if defined(__x86_64__)
#include <xmmintrin.h>
#endif

namespace atb_core::cpu {

// Makes the thread treat denormal inputs as zero and flush denormal results to zero, as long as the object lives. AMX
// does so in any mode, so all other levels have to. The destructor restores the previous mode.
class FlushDenormals {
 public:
#if defined(__x86_64__)
  FlushDenormals() : saved_(_mm_getcsr()) { _mm_setcsr(static_cast<unsigned>(saved_) | 0x8040u); }  // FTZ | DAZ
  ~FlushDenormals() { _mm_setcsr(static_cast<unsigned>(saved_)); }
#elif defined(__aarch64__)
  FlushDenormals() : saved_(read()) { write(saved_ | (uint64_t{1} << 24)); }  // FPCR.FZ
  ~FlushDenormals() { write(saved_); }
#else
  FlushDenormals() : saved_(0) {}
#endif
  FlushDenormals(const FlushDenormals&) = delete;
  FlushDenormals& operator=(const FlushDenormals&) = delete;

 private:
#if defined(__aarch64__)
  static uint64_t read() {
    uint64_t value;
    asm volatile("mrs %0, fpcr" : "=r"(value));
    return value;
  }
  static void write(uint64_t value) { asm volatile("msr fpcr, %0" ::"r"(value)); }
#endif
  uint64_t saved_;
};

}  // namespace atb_core::cpu
