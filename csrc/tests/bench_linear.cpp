// SPDX-License-Identifier: Apache-2.0
// Times linear() over all linear layers of a 0.5-billion-parameter decoder: 24 layers and the output head, ~1
// GB in bf16, so that no cache holds data of the previous pass. The products of int8 are those of W8A8; a format of
// quantised weights, such as Q4_0 or int8_weights, is multiplied by bf16.
//   bench_linear [isa] [dtype or format] [threads] [passes] [rows...]
#include <sys/mman.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "cpu/kernels/linear.h"
#include "cpu/thread_pool.h"
#include "graph/types.h"

using namespace atb_core;
using namespace atb_core::cpu;

namespace {

std::byte* huge_pages(size_t bytes) {
  constexpr size_t kHuge = size_t{2} << 20;
  void* p = mmap(nullptr, bytes + kHuge, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (p == MAP_FAILED) std::abort();
  auto* aligned = reinterpret_cast<std::byte*>((reinterpret_cast<uintptr_t>(p) + kHuge - 1) & ~(kHuge - 1));
  madvise(aligned, bytes, MADV_HUGEPAGE);
  return aligned;
}

struct Layer {
  const char* name;
  PackedWeight weight;
};

constexpr struct {
  const char* name;
  int64_t n, k;
} kShapes[] = {{"qkv", 1152, 896}, {"o", 896, 896}, {"gate_up", 9728, 896}, {"down", 896, 4864}};
constexpr int kLayers = 24;
constexpr int64_t kVocabulary = 151936, kHidden = 896, kWidest = 4864;

struct Bench {
  Isa isa;
  DataType dtype;
  QuantFormat format;
  ThreadPool pool;
  std::vector<Layer> layers;
  size_t weight_bytes = 0;
  double parameters = 0;
  std::byte* room = nullptr;
  std::vector<float> scales = std::vector<float>(kVocabulary, 1);  // of int8

  // Makes room for so many bytes in one region, as the engine does: what ends in pages of 4 KiB is read slowly.
  void reserve(size_t bytes) { room = huge_pages(bytes); }

  size_t weight_size(int64_t n, int64_t k) const {
    return align_up(format == QuantFormat::none ? packed_bytes(isa, dtype, n, k) : quant_packed_bytes(format, n, k));
  }

  void add(const char* name, int64_t n, int64_t k) {
    const size_t bytes = weight_size(n, k);
    std::byte* data = std::exchange(room, room + bytes);
    // Finite values in which all bits vary, because multipliers of constant bits need less power.
    uint32_t state = 1;
    for (size_t i = 0; i < bytes / 4; ++i) {
      state = state * 1664525 + 1013904223;
      reinterpret_cast<uint32_t*>(data)[i] = dtype == DataType::i8 ? state : (state & 0x83ff83ff) | 0x30003000;
    }
    layers.push_back({name, {dtype, n, k, data, 1, format}});
    weight_bytes += bytes;
    parameters += static_cast<double>(n) * static_cast<double>(k);
  }

  // Seconds of one pass over all layers with m rows.
  double pass(int64_t m, std::vector<double>* each = nullptr) {
    const size_t item = itemsize(dtype);
    const DataType out = dtype == DataType::i8 ? DataType::bf16 : dtype;
    static std::byte* x = nullptr;
    static std::byte* y = nullptr;
    static std::byte* memory = nullptr;
    static int64_t most = 0;
    static size_t most_memory = 0;
    const ScratchSize scratch = linear_scratch(isa, dtype, m, kWidest, format);
    if (m > most) {
      x = huge_pages(static_cast<size_t>(m * kWidest) * item);
      y = huge_pages(static_cast<size_t>(m * kVocabulary) * itemsize(out));
      scales.resize(static_cast<size_t>(std::max(m, kVocabulary)), 1);
      most = m;
    }
    const size_t wanted = scratch.shared + scratch.per_thread * static_cast<size_t>(pool.size());
    if (wanted > most_memory) memory = huge_pages(most_memory = wanted);
    std::memset(x, 0x3c, static_cast<size_t>(m * kWidest) * item);
    std::vector<std::atomic<int64_t>> tickets(layers.size());
    if (each != nullptr) each->assign(layers.size(), 0);
    const auto start = std::chrono::steady_clock::now();
    pool.lease().run([&](int index, Barrier& barrier) {
      for (size_t i = 0; i < layers.size(); ++i) {
        const PackedWeight& w = layers[i].weight;
        LinearPart part{w, 0, w.n, nullptr, out, y, out, w.n};
        if (dtype == DataType::i8) part.scales = part.row_scales = scales.data();
        const Worker worker{index,
                            pool.size(),
                            memory + scratch.shared + scratch.per_thread * static_cast<size_t>(index),
                            scratch.per_thread,
                            memory,
                            scratch.shared,
                            &barrier,
                            &tickets[i],
                            nullptr};
        linear(isa, {x, dtype, m, w.k, w.k, {&part, 1}}, worker);
        worker.sync();
        if (index == 0 && each != nullptr) {
          (*each)[i] = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
        }
      }
    });
    const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
    return seconds;
  }

  void report(int64_t m, int passes) {
    std::vector<double> seconds, each;
    pass(m);
    double by_name[5] = {}, size[5] = {};
    const double item = static_cast<double>(weight_bytes) / parameters;
    for (int i = 0; i < passes; ++i) {
      seconds.push_back(pass(m, &each));
      for (size_t l = 0; l < layers.size(); ++l) {
        const size_t kind = l + 1 == layers.size() ? 4 : l % 4;
        by_name[kind] += each[l] - (l == 0 ? 0 : each[l - 1]);
        size[kind] += static_cast<double>(layers[l].weight.n * layers[l].weight.k);
      }
    }
    std::sort(seconds.begin(), seconds.end());
    const double best = seconds[0], median = seconds[seconds.size() / 2];
    const double flops = 2 * parameters * static_cast<double>(m), bytes = static_cast<double>(weight_bytes);
    std::printf("m %4ld  median %8.2f ms %6.2f GB/s %6.3f TFLOP/s   best %8.2f ms %6.2f GB/s %6.3f TFLOP/s\n", m,
                median * 1e3, bytes / median * 1e-9, flops / median * 1e-12, best * 1e3, bytes / best * 1e-9,
                flops / best * 1e-12);
    for (size_t kind = 0; kind < 5; ++kind) {
      std::printf("        %-8s %6.2f GB/s %6.3f TFLOP/s\n", kind < 4 ? kShapes[kind].name : "head",
                  size[kind] * item / by_name[kind] * 1e-9,
                  2 * size[kind] * static_cast<double>(m) / by_name[kind] * 1e-12);
    }
    std::fflush(stdout);
  }
};

// int8 is the dtype, of x and weights.
QuantFormat format_from_name(const std::string& text) {
  if (text == "int8") return QuantFormat::none;
  return text == "int8_weights" ? QuantFormat::int8 : quant_format_from_name(text).value_or(QuantFormat::none);
}

}  // namespace

int main(int argc, char** argv) {
  const std::vector<std::string> args(argv + 1, argv + argc);
  const std::optional<Isa> wanted = args.size() > 0 ? isa_from_name(args[0]) : detect();
  if (!wanted || !supported(*wanted)) {
    std::fprintf(stderr, "%s is no instruction set level of this machine\n", args[0].c_str());
    return 1;
  }
  const Isa isa = *wanted;
  const std::string type = args.size() > 1 ? args[1] : "bfloat16";
  const QuantFormat format = format_from_name(type);
  const bool quantised = format != QuantFormat::none;
  const DataType dtype = quantised ? DataType::bf16 : data_type_from_name(type);
  const int threads = args.size() > 2 ? std::stoi(args[2]) : 0;
  const int passes = args.size() > 3 ? std::stoi(args[3]) : 5;
  Bench bench{isa, dtype, format, ThreadPool(resolve_num_threads(threads)), {}};
  size_t bytes = bench.weight_size(kVocabulary, kHidden);
  for (const auto& [name, n, k] : kShapes) bytes += kLayers * bench.weight_size(n, k);
  bench.reserve(bytes);
  for (int layer = 0; layer < kLayers; ++layer) {
    for (const auto& [name, n, k] : kShapes) bench.add(name, n, k);
  }
  bench.add("head", kVocabulary, kHidden);
  std::printf("%s %s, %d threads, %.2f GB of weights\n", std::string(name(isa)).c_str(),
              std::string(quantised ? name(format) : name(dtype)).c_str(), bench.pool.size(),
              static_cast<double>(bench.weight_bytes) * 1e-9);
  std::vector<int64_t> rows = {1, 2, 4, 8, 16, 64, 512};
  if (args.size() > 4) {
    rows.clear();
    for (size_t i = 4; i < args.size(); ++i) rows.push_back(std::stol(args[i]));
  }
  for (int64_t m : rows) bench.report(m, passes);
}
