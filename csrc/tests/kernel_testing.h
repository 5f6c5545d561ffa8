// SPDX-License-Identifier: Apache-2.0
// Helpers of kernel tests: arrays with guarded ends, runs on several threads, comparison with doubles.
#pragma once

#include <cmath>
#include <cstring>
#include <functional>
#include <limits>
#include <memory>
#include <optional>
#include <random>
#include <thread>
#include <vector>

#include "check.h"
#include "cpu/isa.h"
#include "cpu/kernels/kernels.h"
#include "on_threads.h"

// The portable vectors, for their scalar conversions.
#define ATB_CPU_LEVEL testing
// clang-format off
#include "cpu/kernels/vec_portable.h"
// clang-format on

namespace atb_core::test {

using cpu::Isa;
using cpu::KernelTable;
using cpu::ScratchSize;
using cpu::Worker;
namespace plain = cpu::testing;

inline const DataType kFloats[] = {DataType::f32, DataType::f16, DataType::bf16};

// Tensor that owns its memory; writes past either end change the guards.
class Array {
 public:
  Array() = default;
  Array(DataType dtype, std::vector<int64_t> shape) {
    view_.dtype = dtype;
    view_.rank = static_cast<int>(shape.size());
    for (int i = 0; i < view_.rank; ++i) view_.shape[i] = shape[static_cast<size_t>(i)];
    memory_.assign(view_.bytes() + 2 * kGuard, std::byte{0xa5});
    view_.data = memory_.data() + kGuard;
  }
  Array(const Array& other) : memory_(other.memory_), view_(other.view_) { view_.data = memory_.data() + kGuard; }
  Array& operator=(const Array& other) {
    memory_ = other.memory_;
    view_ = other.view_;
    view_.data = memory_.data() + kGuard;
    return *this;
  }

  operator const TensorView&() const { return view_; }
  const TensorView& view() const { return view_; }
  int64_t numel() const { return view_.numel(); }

  double at(int64_t i) const {
    switch (view_.dtype) {
      case DataType::f32:
        return view_.as<float>()[i];
      case DataType::f16:
        return plain::widen(view_.as<cpu::Half>()[i]);
      case DataType::bf16:
        return plain::widen(view_.as<cpu::Bf16>()[i]);
      case DataType::i32:
        return view_.as<int32_t>()[i];
      case DataType::i64:
        return static_cast<double>(view_.as<int64_t>()[i]);
      case DataType::i8:
        return view_.as<int8_t>()[i];
      case DataType::b8:
        return view_.as<uint8_t>()[i];
    }
    return 0;
  }
  void set(int64_t i, double x) {
    switch (view_.dtype) {
      case DataType::f32:
        view_.as<float>()[i] = static_cast<float>(x);
        break;
      case DataType::f16:
        plain::narrow(static_cast<float>(x), view_.as<cpu::Half>() + i);
        break;
      case DataType::bf16:
        plain::narrow(static_cast<float>(x), view_.as<cpu::Bf16>() + i);
        break;
      case DataType::i32:
        view_.as<int32_t>()[i] = static_cast<int32_t>(x);
        break;
      case DataType::i64:
        view_.as<int64_t>()[i] = static_cast<int64_t>(x);
        break;
      case DataType::i8:
        view_.as<int8_t>()[i] = static_cast<int8_t>(x);
        break;
      case DataType::b8:
        view_.as<uint8_t>()[i] = static_cast<uint8_t>(x);
        break;
    }
  }
  void fill(const std::function<double(int64_t)>& f) {
    for (int64_t i = 0; i < numel(); ++i) set(i, f(i));
  }
  // Takes the values of an array of this size; arguments of kernels keep their addresses.
  void assign(const Array& other) { std::memcpy(view_.data, other.view_.data, view_.bytes()); }

  bool guards_intact() const {
    for (size_t i = 0; i < kGuard; ++i)
      if (memory_[i] != std::byte{0xa5} || memory_[memory_.size() - 1 - i] != std::byte{0xa5}) return false;
    return true;
  }
  bool same_bits(const Array& other) const { return memory_ == other.memory_; }
  bool same_bits(int64_t i, const Array& other, int64_t j, int64_t n) const {
    const size_t item = itemsize(view_.dtype);
    return std::memcmp(view_.as<std::byte>() + static_cast<size_t>(i) * item,
                       other.view_.as<std::byte>() + static_cast<size_t>(j) * item, static_cast<size_t>(n) * item) == 0;
  }

 private:
#if defined(__SANITIZE_ADDRESS__)
  static constexpr size_t kGuard = 0;  // the sanitizer's own guards also see reads
#else
  static constexpr size_t kGuard = 64;
#endif
  std::vector<std::byte> memory_;
  TensorView view_;
};

inline Array random_array(DataType dtype, std::vector<int64_t> shape, unsigned seed, double scale = 1.0) {
  Array a(dtype, std::move(shape));
  std::mt19937 generator(seed);
  std::normal_distribution<double> normal(0.0, scale);
  a.fill([&](int64_t) { return normal(generator); });
  return a;
}

inline Array int_array(std::vector<int64_t> shape, const std::vector<int>& values) {
  Array a(DataType::i32, std::move(shape));
  a.fill([&](int64_t i) { return values[static_cast<size_t>(i)]; });
  return a;
}

// Runs a kernel on `threads` threads as the executor does and returns the first error, if any.
template <typename Args>
std::optional<cpu::ErrorSlot::Report> run(Isa isa, int threads,
                                          void (*KernelTable::*kernel)(const Args&, const Worker&), const Args& args,
                                          ScratchSize scratch = {}) {
  return on_threads(threads, scratch, [&](const Worker& worker) { (cpu::kernel_table(isa).*kernel)(args, worker); });
}

// Runs on every level with 1, 2 and 3 threads: no error, the same bits everywhere, nothing outside the outputs.
// Leaves the portable result in the outputs.
template <typename Args>
void run_everywhere(void (*KernelTable::*kernel)(const Args&, const Worker&), const Args& args,
                    const std::vector<Array*>& outputs, ScratchSize scratch = {}) {
  std::vector<Array> before, expected;
  for (Array* out : outputs) before.push_back(*out);
  for (const Isa isa : cpu::supported_isas()) {
    for (const int threads : {1, 2, 3}) {
      for (size_t i = 0; i < outputs.size(); ++i) outputs[i]->assign(before[i]);
      CHECK(!run(isa, threads, kernel, args, scratch).has_value());
      for (size_t i = 0; i < outputs.size(); ++i) {
        CHECK(outputs[i]->guards_intact());
        if (expected.size() <= i) expected.push_back(*outputs[i]);
        if (!outputs[i]->same_bits(expected[i]))
          report(__FILE__, __LINE__,
                 "output " + std::to_string(i) + " differs on " + std::string(name(isa)) + " with " +
                     std::to_string(threads) + " threads");
      }
    }
  }
}

// Half a unit in the last place of 1.0.
inline double rounding(DataType dtype) {
  return dtype == DataType::f32 ? 0x1p-24 : dtype == DataType::f16 ? 0x1p-11 : 0x1p-8;
}

// |actual - expected| <= one rounding to the dtype + `slack` float32 roundings of max(|expected|, scale) + `more`.
inline void check_close(const Array& actual, const std::function<double(int64_t)>& expected, double slack,
                        double scale = 0.0, const std::function<double(int64_t)>& more = {}) {
  const DataType dtype = actual.view().dtype;
  for (int64_t i = 0; i < actual.numel(); ++i) {
    const double e = expected(i), a = actual.at(i);
    const double tiny = dtype == DataType::f16 ? 0x1p-25 : 0x1p-126;
    const double bound = rounding(dtype) * std::fabs(e) * 1.001 + slack * 0x1p-24 * std::max(std::fabs(e), scale) +
                         tiny + (more ? more(i) : 0.0);
    if (std::fabs(a - e) <= bound) continue;
    report(__FILE__, __LINE__,
           "element " + std::to_string(i) + " is " + std::to_string(a) + ", expected " + std::to_string(e) + " as " +
               std::string(name(dtype)) + ", off by " + std::to_string(std::fabs(a - e) / bound) + " of the bound");
    return;
  }
}

}  // namespace atb_core::test
