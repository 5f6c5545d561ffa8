// SPDX-License-Identifier: Apache-2.0
// Measures attention: prefill in GFLOP/s (causal, without masked scores) and decoding in GB/s of keys and values, on
// one thread, best of several runs, for an instruction set level (default: the best).
// Usage: bench_attention [level]
#include <chrono>

#include "kernel_testing.h"

namespace atb_core::test {
namespace {

template <typename Args>
double best_seconds(Isa isa, void (*KernelTable::*kernel)(const Args&, const Worker&), const Args& args,
                    ScratchSize scratch) {
  double best = HUGE_VAL;
  for (int i = 0; i < 20; ++i) {
    const auto start = std::chrono::steady_clock::now();
    if (run(isa, 1, kernel, args, scratch).has_value()) return NAN;
    best = std::min(best, std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count());
  }
  return best;
}

void prefill(Isa isa, int64_t tokens, int64_t heads, int64_t kv_heads, int64_t d) {
  const Array q = random_array(DataType::bf16, {tokens, heads, d}, 1);
  const Array k = random_array(DataType::bf16, {tokens, kv_heads, d}, 2);
  const Array v = random_array(DataType::bf16, {tokens, kv_heads, d}, 3);
  const Array out(DataType::bf16, {tokens, heads, d}), lengths = int_array({1}, {static_cast<int>(tokens)});
  const cpu::SelfAttentionArgs args{q, k, v, {}, lengths, out, heads, kv_heads, 0.125F, true};
  const double seconds = best_seconds(isa, &KernelTable::self_attention, args, self_attention_scratch(args, 1));
  const double flops = 2.0 * static_cast<double>(d * heads * tokens * (tokens + 1));
  std::printf("prefill %5lld tokens, %lld/%lld heads of %lld: %8.2f ms %8.1f GFLOP/s\n", static_cast<long long>(tokens),
              static_cast<long long>(heads), static_cast<long long>(kv_heads), static_cast<long long>(d), seconds * 1e3,
              flops / seconds * 1e-9);
}

void decode(Isa isa, int64_t batch, int64_t context, int64_t heads, int64_t kv_heads, int64_t d) {
  constexpr int64_t kBlockSize = 128;
  const int64_t width = context / kBlockSize;
  const Array q = random_array(DataType::bf16, {batch, heads, d}, 1);
  const Array k = random_array(DataType::bf16, {batch * width, kBlockSize, kv_heads, d}, 2);
  const Array v = random_array(DataType::bf16, {batch * width, kBlockSize, kv_heads, d}, 3);
  const Array out(DataType::bf16, {batch, heads, d});
  const Array lengths = int_array({batch}, std::vector<int>(static_cast<size_t>(batch), static_cast<int>(context)));
  Array tables(DataType::i32, {batch, width});
  tables.fill([](int64_t i) { return static_cast<double>(i); });
  const cpu::PagedAttentionArgs args{q, k, v, tables, lengths, {}, {}, out, heads, kv_heads, 0.125F};
  const double seconds = best_seconds(isa, &KernelTable::paged_attention, args, paged_attention_scratch(args, 1));
  const double bytes = 4.0 * static_cast<double>(batch * context * kv_heads * d);
  std::printf("decode  %2lld x %5lld tokens, %lld/%lld heads of %lld: %8.3f ms %8.1f GB/s\n",
              static_cast<long long>(batch), static_cast<long long>(context), static_cast<long long>(heads),
              static_cast<long long>(kv_heads), static_cast<long long>(d), seconds * 1e3, bytes / seconds * 1e-9);
}

}  // namespace
}  // namespace atb_core::test

int main(int argc, char** argv) {
  const auto named = argc > 1 ? atb_core::cpu::isa_from_name(argv[1]) : atb_core::cpu::best_isa();
  if (!named || !supported(*named)) return std::fprintf(stderr, "no level %s here\n", argv[1]), 2;
  const atb_core::cpu::Isa isa = *named;
  const int64_t tokens = isa == atb_core::cpu::Isa::portable ? 256 : 2048;
  std::printf("level %s\n", std::string(name(isa)).c_str());
  for (const int64_t d : {64, 128}) {
    atb_core::test::prefill(isa, tokens, 14, 2, d);
    atb_core::test::decode(isa, 4, tokens, 14, 2, d);
    atb_core::test::decode(isa, 4, tokens, 2, 2, d);
  }
}
