// SPDX-License-Identifier: Apache-2.0
// Times attention: prefills, and decoding behind a long context and of many short ones, beside what the machine can do
// at most.
//   bench_attention [isa ...] [--threads N] [--passes N] [--dtype bf16] [--cpu-time] [--context N] [--new N] [--int8]
// Each line gives the arithmetic done (causal: only what a row sees), the bytes of keys and values read, and the shares
// of two limits measured in the same run: a loop of fused multiply-adds of float32 between registers, by which any
// bf16 instruction does twice as many at best, and a read of memory that no cache holds. All levels and passes are
// interleaved, and the medians are printed. --cpu-time measures one thread by the time that it runs, for a machine that
// others use; --context N leaves out prefills of more tokens, 1 all. --new N gives N new tokens of each sequence instead of
// one. Decoding is over rows as they are and, in bf16, over packed ones, as a model's cache has them; --int8: of int8, too.
#include <sys/mman.h>

#include <algorithm>
#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <numeric>
#include <string>
#include <vector>

#include "cpu/kernels/kernels.h"
#include "cpu/thread_pool.h"
#include "graph/types.h"

using namespace atb_core;
using namespace atb_core::cpu;

namespace {

bool cpu_time = false, with_int8 = false;
int64_t new_tokens = 1;

double now() {
  timespec t{};
  clock_gettime(cpu_time ? CLOCK_THREAD_CPUTIME_ID : CLOCK_MONOTONIC, &t);
  return static_cast<double>(t.tv_sec) + 1e-9 * static_cast<double>(t.tv_nsec);
}

std::byte* huge_pages(size_t bytes) {
  constexpr size_t kHuge = size_t{2} << 20;
  void* p = mmap(nullptr, bytes + kHuge, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (p == MAP_FAILED) std::abort();
  auto* aligned = reinterpret_cast<std::byte*>((reinterpret_cast<uintptr_t>(p) + kHuge - 1) & ~(kHuge - 1));
  madvise(aligned, bytes, MADV_HUGEPAGE);
  return aligned;
}

// Bytes a second that all threads read together.
double stream(ThreadPool& pool) {
  constexpr size_t kBytes = size_t{512} << 20;
  static std::byte* memory = huge_pages(kBytes);
  static bool ready = false;
  if (!ready) std::memset(memory, 1, kBytes);
  ready = true;
  std::atomic<uint64_t> total{0};
  const double start = now();
  pool.lease().run([&](int index, Barrier&) {
    const size_t part = kBytes / static_cast<size_t>(pool.size());
    const auto* p = reinterpret_cast<const uint64_t*>(memory + part * static_cast<size_t>(index));
    uint64_t sums[8] = {};
    for (size_t i = 0; i + 8 <= part / 8; i += 8)
      for (size_t j = 0; j < 8; ++j) sums[j] ^= p[i + j];
    total.fetch_xor(std::accumulate(sums, sums + 8, uint64_t{0}));
  });
  return static_cast<double>(kBytes) / (now() - start);
}

#if defined(__x86_64__)
__attribute__((target("avx512f"))) float multiply_512(int64_t rounds) {
  using V = float __attribute__((vector_size(64)));
  V sums[12] = {};
  V a = {}, b = {};
  for (int64_t i = 0; i < rounds; ++i)
    for (V& sum : sums) asm volatile("vfmadd231ps %1, %2, %0" : "+v"(sum) : "v"(a), "v"(b));
  return sums[0][0];
}
__attribute__((target("avx2,fma"))) float multiply_256(int64_t rounds) {
  using V = float __attribute__((vector_size(32)));
  V sums[12] = {};
  V a = {}, b = {};
  for (int64_t i = 0; i < rounds; ++i)
    for (V& sum : sums) asm volatile("vfmadd231ps %1, %2, %0" : "+x"(sum) : "x"(a), "x"(b));
  return sums[0][0];
}
#endif

// Float32 operations a second of all threads, between registers.
double multiply_add_peak([[maybe_unused]] ThreadPool& pool) {
#if defined(__x86_64__)
  constexpr int64_t kRounds = 2'000'000;
  const bool wide = supported(Isa::avx512);
  if (!wide && !supported(Isa::avx2)) return 0;
  const double start = now();
  pool.lease().run([&](int, Barrier&) { wide ? multiply_512(kRounds) : multiply_256(kRounds); });
  return static_cast<double>(kRounds * 12 * 2 * (wide ? 16 : 8) * pool.size()) / (now() - start);
#else
  return 0;
#endif
}

struct Shape {
  const char* name;
  int64_t heads, kv_heads, d;
};
constexpr Shape kShapes[] = {{"14/2/64", 14, 2, 64}, {"9/3/64", 9, 3, 64}, {"32/8/128", 32, 8, 128}};
constexpr int64_t kBlock = 128;
// Caches of a decode case together: more than the last level of any processor's cache.
constexpr size_t kCaches = size_t{768} << 20;

enum class Cache { none, rows, packed, int8 };  // none: prefill
constexpr const char* kCacheNames[] = {"prefill", "rows", "packed", "int8"};

struct Case {
  Shape shape;
  int64_t context;
  Cache cache;
  int64_t batch = 1;
  std::vector<std::vector<double>> seconds{};  // of each level

  bool decode() const { return cache != Cache::none; }
  bool int8() const { return cache == Cache::int8; }
  int64_t tokens() const { return decode() ? batch * new_tokens : context; }
  int64_t blocks() const { return batch * ((context + kBlock - 1) / kBlock); }
};

// One layer's inputs; decoding cycles over caches of many layers, so that they come from memory.
struct Inputs {
  TensorView q, k, v, out, lengths, q_lens, tables;
  int64_t layers = 1;
  size_t cache_bytes = 0;

  Inputs(DataType dtype, const Case& c) {
    const Shape& s = c.shape;
    const int64_t tokens = c.tokens(), blocks = c.blocks();
    const int64_t width = s.d + (c.int8() ? 4 : 0);
    const DataType cached = c.int8() ? DataType::i8 : dtype;
    cache_bytes = static_cast<size_t>(blocks * kBlock * s.kv_heads * width) * itemsize(cached);
    if (c.decode()) layers = std::max<int64_t>(1, static_cast<int64_t>(kCaches / (2 * cache_bytes)));
    q = make(dtype, {tokens, s.heads, s.d});
    out = make(dtype, {tokens, s.heads, s.d});
    const std::vector<int64_t> shape = c.decode() ? std::vector<int64_t>{layers * blocks, kBlock, s.kv_heads, width}
                                                  : std::vector<int64_t>{tokens, s.kv_heads, s.d};
    k = make(cached, shape);
    v = make(cached, shape);
    q_lens = make(DataType::i32, {c.batch});
    std::fill_n(q_lens.as<int32_t>(), c.batch, static_cast<int32_t>(new_tokens));
    lengths = make(DataType::i32, {c.batch});
    std::fill_n(lengths.as<int32_t>(), c.batch, static_cast<int32_t>(c.context));
    tables = make(DataType::i32, {c.batch, blocks / c.batch});
    for (int64_t i = 0; i < blocks; ++i) tables.as<int32_t>()[i] = static_cast<int32_t>(i);
  }
  static TensorView make(DataType dtype, const std::vector<int64_t>& shape) {
    TensorView view;
    view.dtype = dtype;
    view.rank = static_cast<int>(shape.size());
    std::copy(shape.begin(), shape.end(), view.shape);
    const size_t bytes = view.bytes();
    view.data = huge_pages(bytes);
    uint32_t state = 1;
    for (size_t i = 0; dtype != DataType::i32 && i < bytes / 4; ++i) {  // of magnitudes up to one
      state = state * 1664525 + 1013904223;
      reinterpret_cast<uint32_t*>(view.data)[i] = (state & 0x83ff83ff) | 0x3c003c00;
    }
    return view;
  }
};

class Bench {
 public:
  Bench(std::vector<Isa> levels, DataType dtype, int threads)
      : levels_(std::move(levels)), dtype_(dtype), pool_(threads) {}

  double once(Isa isa, const Case& c, const Inputs& inputs) {
    const Shape& s = c.shape;
    const float scale = 0.125F;
    if (!c.decode()) {
      const SelfAttentionArgs args{inputs.q,   inputs.k, inputs.v,   {},    inputs.lengths,
                                   inputs.out, s.heads,  s.kv_heads, scale, true};
      return run(kernel_table(isa).self_attention, args, self_attention_scratch(args, pool_.size()));
    }
    double seconds = 0;
    for (int64_t layer = 0; layer < inputs.layers; ++layer) {
      PagedAttentionArgs args{inputs.q, inputs.k,   inputs.v, inputs.tables, inputs.lengths, {},
                              {},       inputs.out, s.heads,  s.kv_heads,    scale};
      const size_t offset = inputs.cache_bytes * static_cast<size_t>(layer);
      args.k_cache.data = inputs.k.as<std::byte>() + offset;
      args.v_cache.data = inputs.v.as<std::byte>() + offset;
      args.k_cache.shape[0] = args.v_cache.shape[0] = c.blocks();
      args.packed_kv = c.cache == Cache::packed;
      if (new_tokens > 1) args.q_lens = inputs.q_lens;
      seconds += run(kernel_table(isa).paged_attention, args, paged_attention_scratch(args, pool_.size()));
    }
    return seconds / static_cast<double>(inputs.layers);
  }

  void report(int passes, int64_t longest) {
    std::vector<double> peaks, streams;
    std::vector<Case> cases;
    for (const Shape& shape : kShapes) {
      for (const int64_t context : {512, 2048, 8192})
        if (context <= longest) cases.push_back({shape, context, Cache::none});
      for (const Cache cache : {Cache::rows, Cache::packed, Cache::int8}) {
        if (longest == 0 || (cache == Cache::int8 && !with_int8)) continue;
        if (cache == Cache::packed && dtype_ != DataType::bf16) continue;
        cases.push_back({shape, 8192, cache});
        cases.push_back({shape, 96, cache, 32});
      }
    }
    for (Case& c : cases) {
      const Inputs inputs(dtype_, c);
      c.seconds.resize(levels_.size());
      for (int pass = 0; pass < passes; ++pass) {
        peaks.push_back(multiply_add_peak(pool_));
        streams.push_back(stream(pool_));
        for (size_t i = 0; i < levels_.size(); ++i) c.seconds[i].push_back(once(levels_[i], c, inputs));
      }
      print(c, median(peaks), median(streams));
    }
  }

 private:
  static double median(std::vector<double> values) {
    std::sort(values.begin(), values.end());
    return values[values.size() / 2];
  }

  template <typename Args>
  double run(void (*kernel)(const Args&, const Worker&), const Args& args, ScratchSize scratch) {
    const size_t bytes = scratch.shared + scratch.per_thread * static_cast<size_t>(pool_.size());
    if (bytes > room_) memory_ = huge_pages(room_ = bytes);
    std::atomic<int64_t> ticket{0};
    ErrorSlot error;
    const double start = now();
    pool_.lease().run([&](int index, Barrier& barrier) {
      std::byte* own = memory_ + scratch.shared + scratch.per_thread * static_cast<size_t>(index);
      kernel(args, {index, pool_.size(), own, scratch.per_thread, memory_, scratch.shared, &barrier, &ticket, &error});
    });
    const double seconds = now() - start;
    if (error.failed()) std::abort();
    return seconds;
  }

  void print(const Case& c, double peak, double read) {
    const Shape& s = c.shape;
    const auto context = static_cast<double>(c.context);
    const double hidden = (c.decode() ? static_cast<double>(new_tokens - 1) : context - 1) / 2;  // on average
    const double flops = 4 * (context - hidden) * static_cast<double>(c.tokens() * s.heads * s.d);
    const int64_t rows = 2 * c.batch * c.context * s.kv_heads;
    const double bytes = c.int8() ? static_cast<double>(rows * (s.d + 4))
                                  : static_cast<double>(rows * s.d) * static_cast<double>(itemsize(dtype_));
    std::printf("%-9s %-7s %2ld x %5ld   fma %.3f TFLOP/s, stream %.1f GB/s\n", s.name,
                kCacheNames[static_cast<int>(c.cache)], static_cast<long>(c.batch), static_cast<long>(c.context),
                peak * 1e-12, read * 1e-9);
    for (size_t i = 0; i < levels_.size(); ++i) {
      const double t = median(c.seconds[i]);
      std::printf("    %-12s %9.3f ms  %6.3f TFLOP/s (%4.2f of fma)  %6.2f GB/s (%4.2f of the stream)\n",
                  std::string(name(levels_[i])).c_str(), t * 1e3, flops / t * 1e-12, peak > 0 ? flops / t / peak : 0.0,
                  bytes / t * 1e-9, bytes / t / read);
    }
    std::fflush(stdout);
  }

  std::vector<Isa> levels_;
  DataType dtype_;
  ThreadPool pool_;
  std::byte* memory_ = nullptr;
  size_t room_ = 0;
};

}  // namespace

int main(int argc, char** argv) {
  std::vector<Isa> levels;
  DataType dtype = DataType::bf16;
  int threads = 0, passes = 5, longest = 8192;
  for (int i = 1; i < argc; ++i) {
    const std::string arg = argv[i];
    const bool has_value = i + 1 < argc;
    if (arg == "--threads" && has_value) {
      threads = std::stoi(argv[++i]);
    } else if (arg == "--passes" && has_value) {
      passes = std::stoi(argv[++i]);
    } else if (arg == "--context" && has_value) {
      longest = std::stoi(argv[++i]);
    } else if (arg == "--new" && has_value) {
      new_tokens = std::clamp(std::stoi(argv[++i]), 1, 96);
    } else if (arg == "--cpu-time") {
      cpu_time = true;
      threads = 1;
    } else if (arg == "--int8") {
      with_int8 = true;
    } else if (arg == "--dtype" && has_value) {
      dtype = data_type_from_name(argv[++i]);
    } else if (const auto isa = isa_from_name(arg); isa && supported(*isa)) {
      levels.push_back(*isa);
    } else {
      std::fprintf(stderr, "%s is no instruction set level of this machine, and no option\n", arg.c_str());
      return 1;
    }
  }
  if (levels.empty()) levels = {best_isa()};
  Bench(levels, dtype, resolve_num_threads(threads)).report(std::max(1, passes), longest);
}
