// SPDX-License-Identifier: Apache-2.0
#include "kernel_testing.h"

#include <algorithm>
#include <numeric>

namespace atb_core::test {
namespace {

struct Heads {
  int64_t q, kv, d, dv;
};

// Keys and values of whole sequences, with the queries of all their tokens.
struct Sequences {
  Heads heads;
  std::vector<int> lengths;
  Array q, k, v, out;
  float cap = 0;
  bool int8 = false;  // keys and values count as a cache of int8 has them

  Sequences(DataType dtype, Heads h, std::vector<int> sizes, unsigned seed = 1) : heads(h), lengths(std::move(sizes)) {
    const int64_t t = std::accumulate(lengths.begin(), lengths.end(), int64_t{0});
    q = random_array(dtype, {t, h.q, h.d}, seed);
    k = random_array(dtype, {t, h.kv, h.d}, seed + 1);
    v = random_array(dtype, {t, h.kv, h.dv}, seed + 2);
    out = Array(dtype, {t, h.q, h.dv});
  }
  float scale() const { return 1.0F / std::sqrt(static_cast<float>(heads.d)); }
};

// What a cache of int8 makes of the rows of an array.
Array rounded_to_int8(const Array& x) {
  const int64_t n = x.view().dim(-1);
  Array out(DataType::f32, {x.numel() / n, n});
  for (int64_t row = 0; row < x.numel(); row += n) {
    float largest = 0;
    for (int64_t i = 0; i < n; ++i) largest = std::max(largest, std::fabs(static_cast<float>(x.at(row + i))));
    const float scale = largest / 127;
    for (int64_t i = 0; i < n && scale > 0; ++i)
      out.set(row + i, std::nearbyint(static_cast<float>(x.at(row + i)) / scale) * scale);
  }
  return out;
}

cpu::SelfAttentionArgs prefill_args(const Sequences& s, const Array& lengths, bool causal = true) {
  return {s.q, s.k, s.v, {}, lengths, s.out, s.heads.q, s.heads.kv, s.scale(), causal, s.cap, {.position = 1}, s.int8};
}

Array lengths_of(const Sequences& s) { return int_array({static_cast<int64_t>(s.lengths.size())}, s.lengths); }

struct Row {
  std::vector<double> values, magnitudes;  // sums of p * v and of p * |v|
};

// One row in double: scores of the positions [0, visible) of the sequence that starts at token `first`.
Row attend(const Sequences& s, int64_t first, int64_t token, int64_t head, int64_t visible, const Array* mask,
           int64_t mask_row) {
  const auto [hq, hk, d, dv] = s.heads;
  const int64_t kv_head = head / (hq / hk);
  std::vector<double> p(static_cast<size_t>(visible));
  double top = -HUGE_VAL, sum = 0;
  for (int64_t t = 0; t < visible; ++t) {
    double dot = 0;
    for (int64_t i = 0; i < d; ++i)
      dot += s.q.at((token * hq + head) * d + i) * s.k.at(((first + t) * hk + kv_head) * d + i);
    dot *= s.scale();
    if (s.cap > 0) dot = s.cap * std::tanh(dot / s.cap);
    if (mask != nullptr) dot += mask->at(mask_row * mask->view().dim(-1) + t);
    p[static_cast<size_t>(t)] = dot;
    top = std::max(top, dot);
  }
  for (double& x : p) sum += x = std::exp(x - top);
  Row out{std::vector<double>(static_cast<size_t>(dv), 0.0), std::vector<double>(static_cast<size_t>(dv), 0.0)};
  for (int64_t t = 0; t < visible; ++t)
    for (int64_t c = 0; c < dv; ++c) {
      const double x = p[static_cast<size_t>(t)] / sum * s.v.at(((first + t) * hk + kv_head) * dv + c);
      out.values[static_cast<size_t>(c)] += x;
      out.magnitudes[static_cast<size_t>(c)] += std::fabs(x);
    }
  return out;
}

void check_against_double(const Sequences& given, bool causal, const Array* mask = nullptr) {
  Sequences s = given;
  if (s.int8) s.k = rounded_to_int8(given.k);
  if (s.int8) s.v = rounded_to_int8(given.v);
  std::vector<double> expected, magnitudes;
  int64_t first = 0;
  for (const int length : s.lengths) {
    for (int64_t j = 0; j < length; ++j)
      for (int64_t h = 0; h < s.heads.q; ++h) {
        const Row row = attend(s, first, first + j, h, causal ? j + 1 : length, mask, j);
        expected.insert(expected.end(), row.values.begin(), row.values.end());
        magnitudes.insert(magnitudes.end(), row.magnitudes.begin(), row.magnitudes.end());
      }
    first += length;
  }
  // With bf16, probabilities are rounded to it, above and below the line.
  const double rounded = s.q.view().dtype == DataType::bf16 ? 2 * rounding(DataType::bf16) : 0.0;
  check_close(
      s.out, [&](int64_t i) { return expected[static_cast<size_t>(i)]; }, 16, 1.0,
      [&](int64_t i) { return rounded * magnitudes[static_cast<size_t>(i)]; });
}

ScratchSize prefill_scratch(const Sequences& s) { return cpu::self_attention_scratch(prefill_args(s, {}), 3); }

// The sequences' keys and values in a paged cache, with the blocks in a mixed order.
struct Cache {
  Array k, v, tables, slots;
  int64_t block_size;

  Cache(const Sequences& s, int64_t size) : block_size(size) {
    const auto [hq, hk, d, dv] = s.heads;
    const int longest = *std::max_element(s.lengths.begin(), s.lengths.end());
    const int64_t width = (longest + size - 1) / size + 1, batch = static_cast<int64_t>(s.lengths.size());
    const int64_t blocks = width * batch + 3;
    k = s.int8 ? unwritten({blocks, size, hk, d + 4}) : random_array(s.k.view().dtype, {blocks, size, hk, d}, 77);
    v = s.int8 ? unwritten({blocks, size, hk, dv + 4}) : random_array(s.v.view().dtype, {blocks, size, hk, dv}, 78);
    std::vector<int> order(static_cast<size_t>(blocks));
    std::iota(order.begin(), order.end(), 0);
    std::shuffle(order.begin(), order.end(), std::mt19937(5));
    tables = int_array({batch, width}, order);
    std::vector<int> places;
    for (int64_t b = 0; b < batch; ++b)
      for (int64_t t = 0; t < s.lengths[static_cast<size_t>(b)]; ++t)
        places.push_back(static_cast<int>(tables.at(b * width + t / size) * static_cast<double>(size)) +
                         static_cast<int>(t % size));
    slots = int_array({static_cast<int64_t>(places.size())}, places);
    run_everywhere(&KernelTable::reshape_and_cache, cpu::ReshapeAndCacheArgs{s.k, s.v, k, v, slots}, {&k, &v});
  }
  // A cache of int8 whose scales are NaN.
  static Array unwritten(std::vector<int64_t> shape) {
    Array cache(DataType::i8, std::move(shape));
    cache.fill([](int64_t) { return -1; });
    return cache;
  }
  static void copy(const Array& from, int64_t i, const Array& to, int64_t j, int64_t n) {
    const size_t bytes = static_cast<size_t>(n) * itemsize(from.view().dtype);
    std::memcpy(to.view().as<std::byte>() + static_cast<size_t>(j) * bytes,
                from.view().as<std::byte>() + static_cast<size_t>(i) * bytes, bytes);
  }
};

// Decodes over packed caches, of which what nobody wrote is `unwritten`, and compares with `expected`. Each level has an
// order of its own.
void check_packed_beside(const Sequences& s, const Cache& cache, cpu::PagedAttentionArgs args, const Array& expected,
                         ScratchSize scratch, double unwritten) {
  Array k = cache.k, v = cache.v, out = expected;
  for (Array* each : {&k, &v}) each->fill([=](int64_t) { return unwritten; });
  const Array no_k = k, no_v = v;
  args.k_cache = k;
  args.v_cache = v;
  args.out = out;
  args.packed_kv = true;
  for (const Isa isa : cpu::supported_isas())
    for (const int threads : {1, 2, 3}) {
      k.assign(no_k);
      v.assign(no_v);
      out.fill([](int64_t) { return 0; });
      const cpu::ReshapeAndCacheArgs store{s.k, s.v, k, v, cache.slots, true};
      CHECK(!run(isa, threads, &KernelTable::reshape_and_cache, store).has_value());
      CHECK(!run(isa, threads, &KernelTable::paged_attention, args, scratch).has_value());
      CHECK(k.guards_intact() && v.guards_intact() && out.same_bits(expected));
    }
}

// Weights of zero hide finite values, but no others.
void check_packed(const Sequences& s, const Cache& cache, const cpu::PagedAttentionArgs& args, const Array& expected,
                  ScratchSize scratch) {
  for (const double unwritten : {-1e30, static_cast<double>(NAN)})
    check_packed_beside(s, cache, args, expected, scratch, unwritten);
}

// Decoding the last n tokens of each sequence (n may be zero), compared with the rows of the prefill.
void check_decode(const Sequences& s, int64_t block_size, const std::vector<int>& new_tokens, bool spec,
                  size_t shared_limit = SIZE_MAX) {
  const auto [hq, hk, d, dv] = s.heads;
  const Cache cache(s, block_size);
  const int64_t tokens = std::accumulate(new_tokens.begin(), new_tokens.end(), int64_t{0});
  const int64_t batch = static_cast<int64_t>(s.lengths.size());
  Array q(s.q.view().dtype, {tokens, hq, d}), out(s.q.view().dtype, {tokens, hq, dv});
  std::vector<int64_t> origin;  // the prefill row of each new token
  int64_t end = 0;
  for (size_t b = 0; b < s.lengths.size(); ++b) {
    end += s.lengths[b];
    for (int j = 0; j < new_tokens[b]; ++j) origin.push_back(end - new_tokens[b] + j);
  }
  for (int64_t t = 0; t < tokens; ++t) Cache::copy(s.q, origin[static_cast<size_t>(t)], q, t, hq * d);
  const Array contexts = lengths_of(s), q_lens = int_array({batch}, new_tokens);
  cpu::PagedAttentionArgs args{q, cache.k, cache.v, cache.tables, contexts, {}, {}, out, hq, hk, s.scale()};
  args.soft_cap = s.cap;
  if (spec) args.q_lens = q_lens;
  ScratchSize scratch = paged_attention_scratch(args, 3);
  scratch.shared = std::min(scratch.shared, shared_limit);
  run_everywhere(&KernelTable::paged_attention, args, {&out}, scratch);
  for (int64_t t = 0; t < tokens; ++t)
    CHECK(out.same_bits(t * hq * dv, s.out, origin[static_cast<size_t>(t)] * hq * dv, hq * dv));
  if (cpu::can_pack(cache.k) && cpu::can_pack(cache.v)) check_packed(s, cache, args, out, scratch);
}

void prefill(Sequences& s, bool causal = true) {
  const Array lengths = lengths_of(s);
  run_everywhere(&KernelTable::self_attention, prefill_args(s, lengths, causal), {&s.out}, prefill_scratch(s));
}

TEST(causal_prefill_matches_double_on_every_level) {
  for (const DataType dtype : kFloats) {
    Sequences s(dtype, {4, 2, 64, 64}, {1, 70, 0, 130});
    prefill(s);
    check_against_double(s, true);
  }
}

TEST(full_attention_matches_double) {
  Sequences s(DataType::bf16, {3, 3, 32, 32}, {65, 3});
  prefill(s, false);
  check_against_double(s, false);
}

TEST(int8_caches_match_double_and_decode_with_the_bits_of_prefill) {
  for (const DataType dtype : kFloats)
    for (const Heads heads : {Heads{6, 2, 64, 64}, Heads{4, 1, 128, 128}, Heads{3, 1, 20, 20}, Heads{2, 2, 5, 5}}) {
      Sequences s(dtype, heads, {130, 1, 200});
      s.int8 = true;
      prefill(s);
      check_against_double(s, true);
      for (const int64_t block_size : {1, 16, 48, 128}) check_decode(s, block_size, {1, 1, 1}, false);
      check_decode(s, 16, {7, 1, 70}, true);
    }
}

TEST(int8_caches_with_caps_and_split_contexts) {
  Sequences s(DataType::bf16, {2, 1, 64, 64}, {1500});
  s.int8 = true;
  s.cap = 0.5F;
  prefill(s);
  check_against_double(s, true);
  check_decode(s, 16, {1}, false);
  check_decode(s, 16, {3}, true);
  check_decode(s, 16, {1}, false, 0);  // no shared memory: not split
}

TEST(rows_of_int8_that_are_not_finite_count_only_where_they_are_seen) {
  for (const DataType dtype : kFloats) {
    Sequences s(dtype, {3, 1, 32, 32}, {90});
    s.int8 = true;
    s.k.set(50 * 32 + 1, NAN);
    s.v.set(70 * 32, HUGE_VAL);
    prefill(s);
    check_decode(s, 16, {60}, true);
    for (int64_t i = 0; i < s.out.numel(); ++i) CHECK(std::isnan(s.out.at(i)) == (i >= 50 * 3 * 32));
    s.k.set(50 * 32 + 1, 0);
    prefill(s);
    for (int64_t i = 0; i < s.out.numel(); ++i) CHECK(std::isnan(s.out.at(i)) == (i >= 70 * 3 * 32));
  }
}

TEST(int8_caches_hold_rows_and_then_scales_in_each_block) {
  for (const DataType dtype : kFloats) {
    const Array k = random_array(dtype, {3, 2, 5}, 1), v = random_array(dtype, {3, 2, 5}, 2);
    Array k_cache = Cache::unwritten({2, 4, 2, 9}), v_cache = Cache::unwritten({2, 4, 2, 9});
    const Array slots = int_array({3}, {6, -1, 1});
    run_everywhere(&KernelTable::reshape_and_cache, cpu::ReshapeAndCacheArgs{k, v, k_cache, v_cache, slots},
                   {&k_cache, &v_cache});
    Array rows(DataType::i8, {3, 2, 5}), scales(DataType::f32, {3, 2});
    for (const auto& [x, cache] : {std::pair{&k, &k_cache}, std::pair{&v, &v_cache}}) {
      run_everywhere(&KernelTable::dynamic_quant, cpu::DynamicQuantArgs{*x, rows, scales}, {&rows, &scales});
      Array expected = Cache::unwritten({2, 4, 2, 9});
      auto* bytes = expected.view().as<std::byte>();
      for (const auto& [token, block, offset] : {std::tuple{0, 1, 2}, std::tuple{2, 0, 1}}) {
        std::memcpy(bytes + block * 72 + offset * 10, rows.view().as<std::byte>() + token * 10, 10);
        std::memcpy(bytes + block * 72 + 40 + offset * 8, scales.view().as<std::byte>() + token * 8, 8);
      }
      CHECK(cache->same_bits(expected));
    }
  }
}

TEST(odd_head_sizes) {
  for (const Heads heads :
       {Heads{2, 1, 1, 1}, Heads{2, 1, 20, 36}, Heads{5, 1, 80, 80}, Heads{2, 2, 128, 96}, Heads{1, 1, 512, 512}}) {
    Sequences s(DataType::bf16, heads, {67, 9});
    prefill(s);
    check_against_double(s, true);
    check_decode(s, 16, {1, 1}, false);
  }
}

TEST(more_query_heads_than_an_item_has_rows) {
  Sequences s(DataType::f32, {130, 1, 16, 16}, {66});
  prefill(s);
  check_against_double(s, true);
}

TEST(more_kv_heads_than_an_item_takes) {
  for (const bool int8 : {false, true}) {
    Sequences s(DataType::bf16, {38, 19, 16, 16}, {70, 3, 130});
    s.int8 = int8;
    prefill(s);
    check_against_double(s, true);
    check_decode(s, 16, {1, 1, 1}, false);
    check_decode(s, 64, {9, 0, 40}, true);
  }
}

TEST(capped_scores) {
  for (const DataType dtype : kFloats) {
    Sequences s(dtype, {4, 2, 64, 64}, {70, 130});
    s.cap = 0.5F;
    prefill(s);
    check_against_double(s, true);
    check_decode(s, 16, {1, 3}, true);
  }
}

void check_additive_mask(DataType type, DataType dtype) {
  Sequences s(type, {2, 1, 16, 16}, {90, 20});
  Array mask = random_array(dtype, {95, 100}, 9);
  // A row with a whole tile hidden, and one that sees a single position.
  for (int64_t t = 0; t < 64; ++t) mask.set(7 * 100 + t, -HUGE_VAL);
  for (int64_t t = 0; t < 100; ++t)
    if (t != 3) mask.set(11 * 100 + t, -HUGE_VAL);
  const Array lengths = lengths_of(s);
  cpu::SelfAttentionArgs args = prefill_args(s, lengths, false);
  args.mask = mask;
  s.lengths[1] = 20;
  run_everywhere(&KernelTable::self_attention, args, {&s.out}, prefill_scratch(s));
  s.lengths[1] = 20;
  // Row 7 of the second sequence sees no position; its result is zeros.
  const int64_t hidden = (90 + 7) * 2 * 16;
  for (int64_t i = 0; i < 32; ++i) CHECK(s.out.at(hidden + i) == 0.0);
  Array open = mask;
  for (int64_t t = 0; t < 64; ++t) open.set(7 * 100 + t, 0.0);
  Sequences first(type, {2, 1, 16, 16}, {90});
  for (int64_t t = 0; t < 90; ++t) {
    Cache::copy(s.q, t, first.q, t, 32);
    Cache::copy(s.k, t, first.k, t, 16);
    Cache::copy(s.v, t, first.v, t, 16);
    Cache::copy(s.out, t, first.out, t, 32);
  }
  check_against_double(first, false, &mask);
}

TEST(additive_mask) {
  for (const DataType dtype : kFloats) {
    check_additive_mask(DataType::f32, dtype);
    check_additive_mask(DataType::bf16, dtype);
  }
}

TEST(decode_rows_have_the_bits_of_prefill_rows) {
  for (const DataType dtype : kFloats) {
    Sequences s(dtype, {6, 2, 64, 64}, {200, 1, 64, 65, 333});
    prefill(s);
    for (const int64_t block_size : {1, 16, 32, 48, 64, 128}) check_decode(s, block_size, {1, 1, 1, 1, 1}, false);
  }
}

TEST(several_new_tokens_have_the_bits_of_prefill_rows) {
  Sequences s(DataType::bf16, {7, 1, 64, 64}, {150, 70, 300});
  prefill(s);
  check_decode(s, 16, {1, 5, 2}, true);
  check_decode(s, 64, {150, 70, 300}, true);
  check_decode(s, 32, {0, 64, 33}, true);
}

TEST(split_contexts_have_the_same_bits) {
  Sequences s(DataType::bf16, {2, 1, 64, 64}, {1500});
  prefill(s);
  check_decode(s, 128, {1}, false);
  check_decode(s, 128, {2}, true);  // three threads: their tiles are shared
  check_decode(s, 128, {3}, true);
  check_decode(s, 16, {1}, false);
  check_decode(s, 16, {3}, true);
  check_decode(s, 16, {1}, false, 0);  // no shared memory: not split
}

TEST(packed_caches) {
  for (const Heads heads : {Heads{14, 2, 64, 64}, Heads{4, 4, 32, 32}, Heads{38, 19, 96, 96}, Heads{5, 1, 256, 256}})
    for (const float cap : {0.0F, 0.5F}) {
      Sequences s(DataType::bf16, heads, {150, 1, 64, 65, 97});
      s.cap = cap;
      prefill(s);
      check_decode(s, 64, {1, 1, 1, 1, 1}, false);
      check_decode(s, 128, {40, 1, 64, 0, 2}, true);
    }
}

TEST(packed_values_that_are_not_finite_count_only_where_they_are_seen) {
  Sequences s(DataType::bf16, {3, 1, 32, 32}, {90});
  s.v.set(70 * 32, HUGE_VAL);
  s.k.set(50 * 32 + 1, NAN);
  prefill(s);
  for (const int tokens : {90, 45, 1}) check_decode(s, 64, {tokens}, true);
}

TEST(a_packed_slot_that_is_written_twice_keeps_the_later_token) {
  Sequences s(DataType::bf16, {2, 2, 32, 32}, {3, 1});
  Array q(DataType::bf16, {1, 2, 32}), out(DataType::bf16, {1, 2, 32});
  Cache::copy(s.q, 3, q, 0, 64);
  Cache cache(s, 64);
  cache.slots = int_array({4}, {5, -1, 64, 64});
  const Array table = int_array({1, 1}, {1}), contexts = int_array({1}, {1});
  const cpu::PagedAttentionArgs args{q, cache.k, cache.v, table, contexts, {}, {}, out, 2, 2, s.scale()};
  Cache::copy(s.v, 3, out, 0, 64);  // a context of one position: its values
  check_packed(s, cache, args, out, paged_attention_scratch(args, 3));
}

TEST(a_long_context_beside_short_ones_has_the_same_bits) {
  Sequences s(DataType::bf16, {6, 3, 64, 64}, {20, 30, 10, 5, 40, 1500, 70, 8, 16});
  prefill(s);
  check_decode(s, 64, {1, 1, 1, 1, 1, 1, 1, 1, 1}, false);
  check_decode(s, 16, {1, 1, 1, 1, 1, 1, 1, 1, 1}, false);
  check_decode(s, 16, {1, 1, 1, 1, 1, 2, 1, 1, 0}, true);
  check_decode(s, 16, {1, 1, 1, 1, 1, 2, 1, 1, 0}, true, 0);
  check_decode(s, 64, {1, 1, 1, 1, 1, 33, 1, 1, 1}, true);  // heads of one sequence with blocks of different sizes
}

TEST(a_row_does_not_depend_on_what_it_may_not_see) {
  for (const DataType dtype : kFloats) {
    Sequences s(dtype, {2, 1, 16, 16}, {100});
    prefill(s);
    const Array before = s.out;
    for (int64_t i = 50 * 16; i < 100 * 16; ++i) {
      s.k.set(i, NAN);
      s.v.set(i, HUGE_VAL);
    }
    prefill(s);
    CHECK(s.out.same_bits(0, before, 0, 50 * 2 * 16));
    CHECK(std::isnan(s.out.at(50 * 2 * 16)));
  }
}

TEST(infinite_values_count_only_where_they_are_seen) {
  for (const DataType dtype : kFloats) {
    Sequences s(dtype, {3, 1, 32, 16}, {90});
    for (const int64_t t : {0, 20, 70}) s.v.set(t * 16 + 1, t == 20 ? HUGE_VAL : -HUGE_VAL);
    prefill(s);
    for (int64_t t = 0; t < 90; ++t)
      for (int64_t h = 0; h < 3; ++h) {
        const double x = s.out.at((t * 3 + h) * 16 + 1);
        CHECK(t < 20 ? x == -HUGE_VAL : std::isnan(x));
        CHECK(std::isfinite(s.out.at((t * 3 + h) * 16)));
      }
  }
}

TEST(context_of_zero_gives_zeros) {
  Sequences s(DataType::f16, {2, 1, 16, 16}, {5, 5});
  const Cache cache(s, 16);
  const Array contexts = int_array({2}, {0, 5});
  Array q = random_array(DataType::f16, {2, 2, 16}, 3), out(DataType::f16, {2, 2, 16});
  const cpu::PagedAttentionArgs args{q, cache.k, cache.v, cache.tables, contexts, {}, {}, out, 2, 1, 0.25F};
  run_everywhere(&KernelTable::paged_attention, args, {&out}, paged_attention_scratch(args, 3));
  for (int64_t i = 0; i < 32; ++i) CHECK(out.at(i) == 0.0);
  CHECK(out.at(40) != 0.0);
}

TEST(paged_mask_rows) {
  Sequences s(DataType::f32, {2, 1, 16, 16}, {40});
  const Cache cache(s, 16);
  Array q(DataType::f32, {2, 2, 16}), out(DataType::f32, {2, 2, 16});
  Cache::copy(s.q, 38, q, 0, 32);
  Cache::copy(s.q, 39, q, 1, 32);
  const Array contexts = int_array({1}, {40}), q_lens = int_array({1}, {2});
  const Array by_position = random_array(DataType::f32, {40, 40}, 4);
  Array by_token(DataType::f32, {2, 40});
  Cache::copy(by_position, 38, by_token, 0, 40);
  Cache::copy(by_position, 39, by_token, 1, 40);
  for (const bool position : {true, false}) {
    cpu::PagedAttentionArgs args{
        q, cache.k, cache.v, cache.tables, contexts, position ? by_position : by_token, q_lens, out, 2, 1, s.scale()};
    args.mask_rows = position ? cpu::MaskRows{.position = 1} : cpu::MaskRows{.token = 1};
    run_everywhere(&KernelTable::paged_attention, args, {&out}, paged_attention_scratch(args, 3));
    std::vector<double> expected;
    for (int64_t t : {38, 39})
      for (int64_t h : {0, 1})
        for (const double x : attend(s, 0, t, h, t + 1, &by_position, t).values) expected.push_back(x);
    check_close(out, [&](int64_t i) { return expected[static_cast<size_t>(i)]; }, 16, 1.0);
  }
}

TEST(masks_of_heads_and_sequences) {
  Sequences s(DataType::f32, {4, 2, 16, 16}, {70, 3});
  const Array lengths = lengths_of(s);
  // Of each head, of each sequence, and of both.
  for (const cpu::MaskRows rows : {cpu::MaskRows{.head = 80, .position = 1},
                                   {.sequence = 80, .position = 1},
                                   {.sequence = 320, .head = 80, .position = 1}}) {
    const Array mask = random_array(DataType::f32, {2, 4, 80, 75}, 4);
    for (const bool causal : {true, false}) {
      cpu::SelfAttentionArgs args = prefill_args(s, lengths, causal);
      args.mask = mask;
      args.mask_rows = rows;
      run_everywhere(&KernelTable::self_attention, args, {&s.out}, prefill_scratch(s));
      std::vector<double> expected;
      for (int64_t b = 0, first = 0; b < 2; first += s.lengths[static_cast<size_t>(b++)])
        for (int64_t j = 0; j < s.lengths[static_cast<size_t>(b)]; ++j)
          for (int64_t h = 0; h < 4; ++h) {
            const int64_t visible = causal ? j + 1 : s.lengths[static_cast<size_t>(b)];
            const int64_t row = rows.sequence * b + rows.head * h + j;
            for (const double x : attend(s, first, first + j, h, visible, &mask, row).values) expected.push_back(x);
          }
      check_close(s.out, [&](int64_t i) { return expected[static_cast<size_t>(i)]; }, 16, 1.0);
    }
  }
  const Cache cache(s, 16);
  const Array contexts = int_array({2}, {70, 3}), mask = random_array(DataType::f32, {2, 4, 1, 75}, 5);
  Array q(DataType::f32, {2, 4, 16}), out(DataType::f32, {2, 4, 16});
  Cache::copy(s.q, 69, q, 0, 64);
  Cache::copy(s.q, 72, q, 1, 64);
  cpu::PagedAttentionArgs args{q, cache.k, cache.v, cache.tables, contexts, mask, {}, out, 4, 2, s.scale()};
  args.mask_rows = {.sequence = 4, .head = 1};
  run_everywhere(&KernelTable::paged_attention, args, {&out}, paged_attention_scratch(args, 3));
  std::vector<double> expected;
  for (int64_t h = 0; h < 4; ++h)
    for (const double x : attend(s, 0, 69, h, 70, &mask, h).values) expected.push_back(x);
  for (int64_t h = 0; h < 4; ++h)
    for (const double x : attend(s, 70, 72, h, 3, &mask, 4 + h).values) expected.push_back(x);
  check_close(out, [&](int64_t i) { return expected[static_cast<size_t>(i)]; }, 16, 1.0);
}

TEST(bad_lengths_and_blocks_are_errors) {
  Sequences s(DataType::bf16, {2, 1, 16, 16}, {40, 40});
  const Cache cache(s, 16);
  Array q = random_array(DataType::bf16, {2, 2, 16}, 3), out(DataType::bf16, {2, 2, 16});
  for (const Isa isa : cpu::supported_isas()) {
    for (const std::vector<int>& lengths :
         {std::vector{40, 39}, {40, 41}, {-1, 81}, {81, -1}, {2000000000, 2000000000}}) {
      const Array bad = int_array({2}, lengths);
      CHECK(run(isa, 2, &KernelTable::self_attention, prefill_args(s, bad), prefill_scratch(s)).has_value());
    }
    for (const std::vector<int>& lengths : {std::vector{40, 4000}, {-2, 40}}) {
      const Array bad = int_array({2}, lengths);
      const cpu::PagedAttentionArgs args{q, cache.k, cache.v, cache.tables, bad, {}, {}, out, 2, 1, 0.25F};
      CHECK(run(isa, 2, &KernelTable::paged_attention, args, paged_attention_scratch(args, 2)).has_value());
    }
    for (const int block : {-1, static_cast<int>(cache.k.view().dim(0)), 2000000000}) {
      Array tables = cache.tables;
      tables.set(tables.view().dim(1) + 1, block);
      const Array contexts = int_array({2}, {40, 40});
      const cpu::PagedAttentionArgs args{q, cache.k, cache.v, tables, contexts, {}, {}, out, 2, 1, 0.25F};
      const auto error = run(isa, 2, &KernelTable::paged_attention, args, paged_attention_scratch(args, 2));
      CHECK(error.has_value() && error->value == block && error->position == 1);
    }
    const Array contexts = int_array({2}, {40, 1}), q_lens = int_array({2}, {0, 2});
    const cpu::PagedAttentionArgs args{q, cache.k, cache.v, cache.tables, contexts, {}, q_lens, out, 2, 1, 0.25F};
    CHECK(run(isa, 2, &KernelTable::paged_attention, args, paged_attention_scratch(args, 2)).has_value());
  }
}

TEST(small_masks_are_errors) {
  Sequences s(DataType::f32, {1, 1, 16, 16}, {40});
  const Array lengths = lengths_of(s);
  for (const std::vector<int64_t>& shape : {std::vector<int64_t>{40, 39}, {39, 40}}) {
    const Array mask = random_array(DataType::f32, shape, 1);
    cpu::SelfAttentionArgs args = prefill_args(s, lengths, false);
    args.mask = mask;
    CHECK(run(Isa::portable, 1, &KernelTable::self_attention, args, prefill_scratch(s)).has_value());
  }
}

}  // namespace
}  // namespace atb_core::test

TEST_MAIN()
