// SPDX-License-Identifier: Apache-2.0
// The host simulator's SelfAttention and PagedAttention: masks, layouts, limits.
#include <functional>
#include <limits>

#include "sim_ops.h"

using namespace atb_core::test;

namespace {

using SelfMask = infer::SelfAttentionParam;
using Paged = infer::PagedAttentionParam;

// softmax(q k^T * scale + added) v for one head; q [n, d], k [m, d], v [m, e].
Values attention_of(const Values& q, const Values& k, const Values& v, size_t n, size_t m, double scale,
                    const std::function<double(size_t, size_t)>& added) {
  const size_t d = q.size() / n, e = v.size() / m;
  Values out(n * e, 0.0);
  for (size_t i = 0; i < n; ++i) {
    Values p(m, 0.0);
    double total = 0.0;
    for (size_t j = 0; j < m; ++j) {
      for (size_t c = 0; c < d; ++c) p[j] += q[i * d + c] * k[j * d + c];
      total += p[j] = std::exp(p[j] * scale + added(i, j));
    }
    for (size_t j = 0; j < m; ++j) {
      for (size_t c = 0; c < e; ++c) out[i * e + c] += p[j] / total * v[j * e + c];
    }
  }
  return out;
}

double causal(size_t i, size_t j) { return j > i ? -1e30 : 0.0; }
double none(size_t, size_t) { return 0.0; }

Values triangle(size_t rows, size_t columns, double masked) {
  Values out(rows * columns, 0.0);
  for (size_t i = 0; i < out.size(); ++i) out[i] = i % columns > i / columns ? masked : 0.0;
  return out;
}

infer::SelfAttentionParam encoder(infer::SelfAttentionParam::MaskType mask, uint32_t triangle = 0) {
  infer::SelfAttentionParam param;
  param.calcType = infer::SelfAttentionParam::PA_ENCODER;
  param.headNum = 1;
  param.qkScale = 0.25f;
  param.maskType = mask;
  param.isTriuMask = triangle;
  return param;
}

Paged paged(Paged::MaskType mask = Paged::UNDEFINED, Paged::CalcType calc = Paged::CALC_TYPE_UNDEFINED) {
  Paged param;
  param.headNum = 2;
  param.kvHeadNum = 1;
  param.qkScale = 0.25f;
  param.maskType = mask;
  param.calcType = calc;
  return param;
}

// Two sequences of 20 and 16 keys in blocks of 16, the blocks out of order; head size 16, one key/value head.
struct Cache {
  Values keys = some(36 * 16, 3), values = some(36 * 16, 4);
  Data k{ACL_FLOAT16, {4, 16, 1, 16}}, v{ACL_FLOAT16, {4, 16, 1, 16}};
  Data table{ACL_INT32, {2, 2}, {2, 0, 3, 77}}, contexts{ACL_INT32, {2}, {20, 16}};

  explicit Cache(bool nz = false) {
    if (nz) {
      k = Data(ACL_FLOAT16, {4, 1, 16, 16}, {}, ACL_FORMAT_FRACTAL_NZ);  // 16 channels: the same places
      v = k;
    }
    for (int64_t i = 0; i < 36 * 16; ++i) {
      const int64_t token = i / 16, block = token < 16 ? 2 : token < 20 ? 0 : 3;
      const int64_t place = token < 20 ? token % 16 : token - 20;
      k.put((block * 16 + place) * 16 + i % 16, keys[static_cast<size_t>(i)]);
      v.put((block * 16 + place) * 16 + i % 16, values[static_cast<size_t>(i)]);
    }
  }

  // Scores of a head of q rows and the first (second) sequence.
  Values expected(const Values& q, size_t rows, bool second,
                  const std::function<double(size_t, size_t)>& added = none) const {
    const size_t from = second ? 20 : 0, count = second ? 16 : 20;
    return attention_of(q, slice_of(keys, from * 16, count * 16), slice_of(values, from * 16, count * 16), rows, count,
                        0.25, added);
  }
};

}  // namespace

TEST(self_attention_attends_within_each_sequence_and_groups_heads) {
  infer::SelfAttentionParam param = encoder(SelfMask::MASK_TYPE_UNDEFINED);
  param.headNum = 2;
  param.kvHeadNum = 1;
  const Values q = some(5 * 32), k = some(5 * 16, 2), v = some(5 * 16, 3);
  const Data lengths(ACL_INT32, {2}, {2, 3});
  const Result result =
      run(param, {{ACL_FLOAT16, {5, 2, 16}, q}, {ACL_FLOAT16, {5, 1, 16}, k}, {ACL_FLOAT16, {5, 1, 16}, v}, lengths});
  for (size_t head = 0; head < 2; ++head) {
    Values rows, got;
    for (size_t t = 2; t < 5; ++t) {
      for (size_t c = 0; c < 16; ++c) rows.push_back(q[t * 32 + head * 16 + c]);
      for (size_t c = 0; c < 16; ++c) got.push_back(result.out[0].values()[t * 32 + head * 16 + c]);
    }
    CHECK(close(got, attention_of(rows, slice_of(k, 32, 48), slice_of(v, 32, 48), 3, 3, 0.25, none), 1e-3));
  }
}

TEST(a_norm_mask_is_added_in_float16_and_marks_places_with_ones_in_bfloat16) {
  const Values q = some(4 * 16), k = some(4 * 16, 2), v = some(4 * 16, 3);
  const Values expected = attention_of(q, k, v, 4, 4, 0.25, causal);
  const auto masked = [&](aclDataType dtype, double value) {
    const Data mask(dtype, {4, 4}, triangle(4, 4, value)), lengths(ACL_INT32, {1}, {4});
    return run(encoder(SelfMask::MASK_TYPE_NORM),
               {{dtype, {4, 16}, q}, {dtype, {4, 16}, k}, {dtype, {4, 16}, v}, mask, lengths})
        .out[0]
        .values();
  };
  CHECK(close(masked(ACL_FLOAT16, -10000.0), expected, 1e-3));
  CHECK(close(masked(ACL_FLOAT16, -std::numeric_limits<double>::infinity()), expected, 1e-3));
  CHECK(!close(masked(ACL_FLOAT16, 1.0), expected, 1e-3));
  CHECK(close(masked(ACL_BF16, 1.0), expected, 1e-2));
  CHECK(!close(masked(ACL_BF16, -10000.0), expected, 1e-2));  // the mistake that this rule invites
}

TEST(the_high_precision_kernel_takes_float16_with_a_mask_of_ones) {
  const Values q = some(4 * 16), k = some(4 * 16, 2), v = some(4 * 16, 3);
  const Data lengths(ACL_INT32, {1}, {4});
  infer::SelfAttentionParam param = encoder(SelfMask::MASK_TYPE_NORM);
  param.kernelType = SelfMask::KERNELTYPE_HIGH_PRECISION;
  const auto masked = [&](double value) {
    const Data mask(ACL_FLOAT16, {4, 4}, triangle(4, 4, value));
    return run(param, {{ACL_FLOAT16, {4, 1, 16}, q},
                       {ACL_FLOAT16, {4, 1, 16}, k},
                       {ACL_FLOAT16, {4, 1, 16}, v},
                       mask,
                       lengths})
        .out[0]
        .values();
  };
  CHECK(close(masked(1.0), attention_of(q, k, v, 4, 4, 0.25, causal), 1e-3));
  CHECK(!close(masked(-10000.0), attention_of(q, k, v, 4, 4, 0.25, causal), 1e-3));
}

TEST(scores_of_float16_are_kept_in_float16_but_in_the_high_precision_kernel) {
  // The products of 16 times 65 and 64 are 66560 and 65536: too large for float16 before the scale, not behind it.
  Values q = filled(2 * 16, 64.0), k = filled(2 * 16, 64.0);
  for (size_t c = 0; c < 16; ++c) k[c] = 65.0;
  const Values v = some(2 * 16, 3);
  const auto result = [&](aclDataType dtype, SelfMask::KernelType kernel) {
    infer::SelfAttentionParam param = encoder(SelfMask::MASK_TYPE_UNDEFINED);
    param.qkScale = 0.001f;
    param.kernelType = kernel;
    return run(param, {{dtype, {2, 1, 16}, q}, {dtype, {2, 1, 16}, k}, {dtype, {2, 1, 16}, v}, {ACL_INT32, {1}, {2}}})
        .out[0]
        .values();
  };
  const auto half = [&] { return result(ACL_FLOAT16, SelfMask::KERNELTYPE_DEFAULT); };
  const auto precise = [&] { return result(ACL_FLOAT16, SelfMask::KERNELTYPE_HIGH_PRECISION); };
  const Values expected = attention_of(q, k, v, 2, 2, 0.001, none);
  CHECK(std::isnan(half()[0]));
  CHECK(close(precise(), expected, 1e-3));
  CHECK(close(result(ACL_BF16, SelfMask::KERNELTYPE_DEFAULT), expected, 1e-2));
  const Soc soc("Ascend310P3");
  CHECK(std::isnan(half()[0]) && std::isnan(precise()[0]));
}

TEST(scores_of_float16_are_rounded_where_they_are_kept) {
  // 2049 is 2048 in float16, so both keys weigh the same.
  const auto shifted = [](size_t, size_t) { return -2048.0; };
  const Values q = filled(16, 1.0), v = some(2 * 16, 3);
  Values k = filled(2 * 16, 128.0);
  k[0] += 1.0;
  infer::SelfAttentionParam param = encoder(SelfMask::MASK_TYPE_UNDEFINED);
  param.qkScale = 1.0f;
  const auto with = [&](SelfMask::KernelType kernel) {
    param.kernelType = kernel;
    const Data lengths(ACL_INT32, {2, 1}, {1, 2});
    return run(param, {{ACL_FLOAT16, {1, 16}, q}, {ACL_FLOAT16, {2, 16}, k}, {ACL_FLOAT16, {2, 16}, v}, lengths})
        .out[0]
        .values();
  };
  CHECK(close(with(SelfMask::KERNELTYPE_DEFAULT), attention_of(q, k, v, 1, 2, 0.0, none), 1e-3));
  CHECK(close(with(SelfMask::KERNELTYPE_HIGH_PRECISION), attention_of(q, k, v, 1, 2, 1.0, shifted), 1e-3));
}

TEST(a_triangle_may_be_there_for_each_sequence) {
  const Values q = some(6 * 16), k = some(6 * 16, 2), v = some(6 * 16, 3);
  Values blocks = triangle(128, 128, -10000.0), hidden = blocks;
  for (size_t i = 0; i < 128; ++i) hidden[i * 128] = i == 0 ? 0.0 : -10000.0;  // the second does not see its first key
  blocks.insert(blocks.end(), hidden.begin(), hidden.end());
  const Data mask(ACL_FLOAT16, {2, 128, 128}, blocks), lengths(ACL_INT32, {2}, {3, 3});
  const Values got =
      run(encoder(SelfMask::MASK_TYPE_NORM, 1),
          {{ACL_FLOAT16, {6, 16}, q}, {ACL_FLOAT16, {6, 16}, k}, {ACL_FLOAT16, {6, 16}, v}, mask, lengths})
          .out[0]
          .values();
  const auto part = [](const Values& x, size_t sequence) { return slice_of(x, sequence * 48, 48); };
  CHECK(close(part(got, 0), attention_of(part(q, 0), part(k, 0), part(v, 0), 3, 3, 0.25, causal), 1e-3));
  const auto without_first = [](size_t i, size_t j) { return j > i || (j == 0 && i > 0) ? -1e30 : 0.0; };
  CHECK(close(part(got, 1), attention_of(part(q, 1), part(k, 1), part(v, 1), 3, 3, 0.25, without_first), 1e-3));
}

TEST(a_block_of_128_serves_as_a_triangle_for_any_length) {
  const int64_t n = 150;
  const Values q = some(n * 16), k = some(n * 16, 2), v = some(n * 16, 3);
  const Values expected = attention_of(q, k, v, n, n, 0.25, causal);
  const Data lengths(ACL_INT32, {1}, {static_cast<double>(n)});
  for (auto type : {SelfMask::MASK_TYPE_NORM, SelfMask::MASK_TYPE_NORM_COMPRESS}) {
    for (aclDataType dtype : {ACL_FLOAT16, ACL_BF16}) {
      const Data block(dtype, {128, 128}, triangle(128, 128, dtype == ACL_BF16 ? 1.0 : -10000.0));
      const std::vector<Data> in = {{dtype, {n, 16}, q}, {dtype, {n, 16}, k}, {dtype, {n, 16}, v}, block, lengths};
      CHECK(close(run(encoder(type, 1), in).out[0].values(), expected, 1e-2));
      if (type == SelfMask::MASK_TYPE_NORM)
        CHECK(run(encoder(type, 0), in).status == ERROR_INVALID_TENSOR_DIM && says("too small"));
    }
  }
}

TEST(self_attention_refuses_what_atb_refuses) {
  const Data x(ACL_FLOAT16, {4, 16}), two(ACL_INT32, {2}, {2, 2}), many(ACL_INT32, {1}, {5});
  CHECK(run(encoder(SelfMask::MASK_TYPE_UNDEFINED), {x, x, x, two}).status == NO_ERROR);
  CHECK(run(encoder(SelfMask::MASK_TYPE_UNDEFINED), {x, x, x, many}).status == ERROR_INVALID_PARAM && says("adds up"));
  const Data uneven(ACL_INT32, {2, 1}, {2, 4}), one_query(ACL_INT32, {2, 1}, {1, 4});
  CHECK(run(encoder(SelfMask::MASK_TYPE_UNDEFINED), {x, x, x, uneven}).status == ERROR_INVALID_PARAM);
  const Data query(ACL_FLOAT16, {1, 16}), few(ACL_INT32, {2}, {2, 1});
  CHECK(run(encoder(SelfMask::MASK_TYPE_UNDEFINED), {query, x, x, one_query}).status == NO_ERROR);
  CHECK(run(encoder(SelfMask::MASK_TYPE_UNDEFINED), {x, x, x, one_query}).status == ERROR_INVALID_PARAM);
  CHECK(run(encoder(SelfMask::MASK_TYPE_UNDEFINED), {x, x, x, few}).status == ERROR_INVALID_PARAM && says("3 queries"));
  const Data f32(ACL_FLOAT, {4, 16}), wide(ACL_FLOAT16, {4, 592}), mask(ACL_BF16, {4, 4});
  CHECK(run(encoder(SelfMask::MASK_TYPE_UNDEFINED), {f32, f32, f32, two}).status == ERROR_INVALID_TENSOR_INI_MATCH);
  CHECK(run(encoder(SelfMask::MASK_TYPE_UNDEFINED), {wide, wide, wide, two}).status == ERROR_INVALID_TENSOR_DIM);
  CHECK(run(encoder(SelfMask::MASK_TYPE_NORM), {x, x, x, mask, two}).status == ERROR_INVALID_TENSOR_INI_MATCH);
  const Data small(ACL_FLOAT16, {64, 64});
  CHECK(run(encoder(SelfMask::MASK_TYPE_NORM_COMPRESS, 1), {x, x, x, small, two}).status == ERROR_INVALID_TENSOR_DIM);
  CHECK(create(encoder(SelfMask::MASK_TYPE_NORM_COMPRESS, 0)) == ERROR_INVALID_PARAM);
  CHECK(create(encoder(SelfMask::MASK_TYPE_UNDEFINED, 1)) == ERROR_INVALID_PARAM && says("isTriuMask"));
  infer::SelfAttentionParam param = encoder(SelfMask::MASK_TYPE_UNDEFINED);
  param.kvHeadNum = 3;
  CHECK(create(param) == ERROR_INVALID_PARAM);
  param = encoder(SelfMask::MASK_TYPE_UNDEFINED);
  param.kvcacheCfg = SelfMask::K_BYPASS_V_BYPASS;
  CHECK(create(param) == ERROR_INVALID_PARAM);
  param.kvcacheCfg = SelfMask::K_CACHE_V_CACHE;
  param.qScale = 3.0f;  // PA_ENCODER does not read it
  CHECK(create(param) == NO_ERROR);
  param.calcType = SelfMask::DECODER;
  CHECK(create(param) == ERROR_INVALID_PARAM && says("PA_ENCODER"));
}

TEST(self_attention_on_310p_takes_its_mask_in_fractals) {
  const Soc soc("Ascend310P3");
  const Values q = some(16 * 16), k = some(16 * 16, 2), v = some(16 * 16, 3);
  const Values mask = fractal(triangle(16, 16, -10000.0), 16, 16);
  const Data lengths(ACL_INT32, {1}, {16}), flat(ACL_FLOAT16, {16, 16}),
      nz(ACL_FLOAT16, {1, 1, 16, 16}, mask, ACL_FORMAT_FRACTAL_NZ);
  const std::vector<Data> in = {
      {ACL_FLOAT16, {16, 1, 16}, q}, {ACL_FLOAT16, {16, 1, 16}, k}, {ACL_FLOAT16, {16, 1, 16}, v}};
  // The runner converts rows of three or four dimensions.
  const Values rows = triangle(16, 16, -10000.0);
  for (const Data& taken : {nz, Data(ACL_FLOAT16, {1, 16, 16}, rows), Data(ACL_FLOAT16, {1, 1, 16, 16}, rows)}) {
    CHECK(close(run(encoder(SelfMask::MASK_TYPE_NORM), {in[0], in[1], in[2], taken, lengths}).out[0].values(),
                attention_of(q, k, v, 16, 16, 0.25, causal), 1e-2));
  }
  CHECK(run(encoder(SelfMask::MASK_TYPE_NORM), {in[0], in[1], in[2], flat, lengths}).status != NO_ERROR);
  const Data rows_of_all(ACL_FLOAT16, {16, 16});
  CHECK(run(encoder(SelfMask::MASK_TYPE_UNDEFINED), {rows_of_all, rows_of_all, rows_of_all, lengths}).status ==
            ERROR_INVALID_TENSOR_DIM_NUM &&
        says("but on 310P"));
  const Data odd(ACL_FLOAT16, {4, 1, 24}), four(ACL_INT32, {1}, {4});
  CHECK(run(encoder(SelfMask::MASK_TYPE_UNDEFINED), {odd, odd, odd, four}).status == ERROR_INVALID_TENSOR_DIM &&
        says("310P"));
}

TEST(self_attention_on_310p_takes_rows_that_are_padded_to_blocks_of_16_or_not) {
  const auto status = [](int64_t rows, double first, double second) {
    const Data x(ACL_FLOAT16, {rows, 1, 16}), lengths(ACL_INT32, {2}, {first, second});
    return run(encoder(SelfMask::MASK_TYPE_UNDEFINED), {x, x, x, lengths}).status;
  };
  CHECK(status(20, 11, 9) == NO_ERROR && status(32, 11, 9) == ERROR_INVALID_PARAM);
  const Soc soc("Ascend310P3");
  CHECK(status(32, 11, 9) == NO_ERROR && status(32, 11, 21) == NO_ERROR && status(16, 7, 9) == NO_ERROR);
  CHECK(status(20, 11, 9) == NO_ERROR);
  CHECK(status(48, 11, 9) == ERROR_INVALID_PARAM && status(16, 11, 9) == ERROR_INVALID_PARAM);
}

TEST(sequences_on_310p_are_up_to_2000_and_none_of_them_empty) {
  const auto status = [](size_t sequences, double first) {
    Values lengths = filled(static_cast<int64_t>(sequences), 1.0);
    lengths[0] = first;
    const auto count = static_cast<int64_t>(sequences), rows = count - 1 + static_cast<int64_t>(first);
    const Data x(ACL_FLOAT16, {rows, 1, 16});
    return run(encoder(SelfMask::MASK_TYPE_UNDEFINED), {x, x, x, {ACL_INT32, {count}, lengths}}).status;
  };
  CHECK(status(3, 0) == NO_ERROR && status(2001, 1) == NO_ERROR);
  const Soc soc("Ascend310P3");
  CHECK(status(2000, 1) == NO_ERROR);
  CHECK(status(2001, 1) == ERROR_INVALID_PARAM && says("2001 sequences"));
  CHECK(status(3, 0) == ERROR_INVALID_PARAM && says("seqLen of sequence 0 is 0"));
}

TEST(blocks_of_the_cache_and_heads_fit_the_tiles_of_paged_attention) {
  const auto status = [](int64_t k_head, int64_t v_head, int64_t block) {
    Paged param = paged();
    param.headNum = 1;
    const Data q(ACL_FLOAT16, {1, 1, k_head}), table(ACL_INT32, {1, 1}, {0}), contexts(ACL_INT32, {1}, {1});
    const Data k(ACL_FLOAT16, {1, block, 1, k_head}), v(ACL_FLOAT16, {1, block, 1, v_head});
    return run(param, {q, k, v, table, contexts}).status;
  };
  const auto taken = [&](int64_t head, int64_t block) { return status(head, head, block) == NO_ERROR; };
  CHECK(taken(128, 128) && taken(64, 256) && taken(80, 192) && taken(160, 96) && taken(192, 80));
  CHECK(!taken(128, 256) && says("16384") && !taken(64, 512) && !taken(80, 256) && !taken(160, 128) &&
        !taken(192, 128));
  CHECK(taken(256, 64) && taken(256, 128) && taken(256, 256));
  CHECK(!taken(256, 96) && !taken(256, 144));
  CHECK(taken(288, 128) && taken(576, 128) && !taken(288, 144));
  CHECK(status(192, 128, 128) == NO_ERROR && status(192, 128, 256) == NO_ERROR);
  CHECK(status(288, 128, 256) == ERROR_INVALID_TENSOR_DIM);
}

TEST(paged_attention_reads_the_cache_by_the_block_table) {
  const Cache cache;
  const Values q = some(2 * 2 * 16, 9);
  const Data rows(ACL_FLOAT16, {2, 2, 16}, q);
  const Values got = run(paged(), {rows, cache.k, cache.v, cache.table, cache.contexts}).out[0].values();
  CHECK(close(slice_of(got, 0, 32), cache.expected(slice_of(q, 0, 32), 2, false), 1e-3));
  CHECK(close(slice_of(got, 32, 32), cache.expected(slice_of(q, 32, 32), 2, true), 1e-3));
  const Data empty(ACL_INT32, {2}, {0, 16});  // a sequence without context is left out
  CHECK(close(slice_of(run(paged(), {rows, cache.k, cache.v, cache.table, empty}).out[0].values(), 0, 32),
              filled(32, 0.0)));
  Values mask = filled(2 * 20, 0.0);
  for (size_t j = 0; j < 10; ++j) mask[j] = -10000.0;
  const Values hidden = run(paged(Paged::MASK_TYPE_NORM),
                            {rows, cache.k, cache.v, cache.table, cache.contexts, {ACL_FLOAT16, {2, 1, 20}, mask}})
                            .out[0]
                            .values();
  const auto second_half = [](size_t, size_t j) { return j < 10 ? -1e30 : 0.0; };
  CHECK(close(slice_of(hidden, 0, 32), cache.expected(slice_of(q, 0, 32), 2, false, second_half), 1e-3));
}

TEST(paged_attention_with_several_queries_takes_the_last_rows_of_the_triangle) {
  const Cache cache;
  const Values q = some(5 * 2 * 16, 9);
  const Data rows(ACL_FLOAT16, {5, 2, 16}, q), queries(ACL_INT32, {2}, {3, 2});
  const Data full(ACL_FLOAT16, {20, 20}, triangle(20, 20, -10000.0));
  Values per_row = filled(5 * 20, 0.0);
  for (size_t i = 0; i < 5; ++i) {
    const size_t position = i < 3 ? 17 + i : 14 + i - 3;
    for (size_t j = position + 1; j < 20; ++j) per_row[i * 20 + j] = -10000.0;
  }
  const Data spec(ACL_FLOAT16, {5, 20}, per_row);
  for (const auto& [type, mask] : {std::pair{Paged::MASK_TYPE_NORM, full}, std::pair{Paged::MASK_TYPE_SPEC, spec}}) {
    const Values got =
        run(paged(type, Paged::CALC_TYPE_SPEC), {rows, cache.k, cache.v, cache.table, cache.contexts, mask, queries})
            .out[0]
            .values();
    for (size_t head = 0; head < 2; ++head) {
      Values mine, out;
      for (size_t i = 3; i < 5; ++i) {
        for (size_t c = 0; c < 16; ++c) mine.push_back(q[i * 32 + head * 16 + c]);
        for (size_t c = 0; c < 16; ++c) out.push_back(got[i * 32 + head * 16 + c]);
      }
      CHECK(
          close(out, cache.expected(mine, 2, true, [](size_t i, size_t j) { return j > 14 + i ? -1e30 : 0.0; }), 1e-3));
    }
  }
}

TEST(paged_attention_with_several_queries_takes_a_mask_for_each_sequence) {
  const Cache cache;
  const Values q = some(4 * 2 * 16, 9);
  const Data rows(ACL_FLOAT16, {4, 2, 16}, q), queries(ACL_INT32, {2}, {2, 2});
  Values masks = filled(2 * 2 * 20, 0.0);
  for (size_t i = 0; i < 4; ++i) {
    const size_t position = (i < 2 ? 18 : 14) + i % 2;
    for (size_t j = position + 1; j < 20; ++j) masks[i * 20 + j] = -10000.0;
  }
  const auto with = [&](const Sizes& shape) {
    return run(paged(Paged::MASK_TYPE_NORM, Paged::CALC_TYPE_SPEC),
               {rows, cache.k, cache.v, cache.table, cache.contexts, {ACL_FLOAT16, shape, masks}, queries});
  };
  const Values got = with({2, 2, 20}).out[0].values();
  Values mine, out;
  for (size_t i = 2; i < 4; ++i) {
    for (size_t c = 0; c < 16; ++c) mine.push_back(q[i * 32 + c]);
    for (size_t c = 0; c < 16; ++c) out.push_back(got[i * 32 + c]);
  }
  CHECK(close(out, cache.expected(mine, 2, true, [](size_t i, size_t j) { return j > 14 + i ? -1e30 : 0.0; }), 1e-3));
  CHECK(with({1, 4, 20}).status == ERROR_INVALID_TENSOR_DIM && with({2, 1, 40}).status == ERROR_INVALID_PARAM);
}

TEST(several_queries_without_a_mask_see_all_of_their_context_on_310p) {
  const Values q = some(2 * 2 * 16, 9);
  const Data rows(ACL_FLOAT16, {2, 2, 16}, q), queries(ACL_INT32, {2}, {1, 1});
  CHECK(create(paged(Paged::UNDEFINED, Paged::CALC_TYPE_SPEC)) == ERROR_INVALID_PARAM && says("needs a mask"));
  const Soc soc("Ascend310P3");
  const Cache cache(true);
  const auto with = [&](const Data& lengths) {
    return run(paged(Paged::UNDEFINED, Paged::CALC_TYPE_SPEC),
               {rows, cache.k, cache.v, cache.table, cache.contexts, lengths});
  };
  const Values got = with(queries).out[0].values();
  CHECK(close(slice_of(got, 0, 32), cache.expected(slice_of(q, 0, 32), 2, false), 1e-2));
  CHECK_THROWS(with({ACL_INT32, {2}, {2, 0}}), "0 queries");
  CHECK(with({ACL_INT32, {1}, {2}}).status == ERROR_INVALID_TENSOR_DIM && says("qSeqLen"));
}

TEST(paged_attention_on_310p_reads_lengths_on_the_device_and_caches_in_fractals) {
  const Soc soc("Ascend310P3");
  const Cache cache(true);
  const Values q = some(2 * 2 * 16, 9);
  const Data rows(ACL_FLOAT16, {2, 2, 16}, q), plain(ACL_FLOAT16, {4, 16, 1, 16});
  const Values got = run(paged(), {rows, cache.k, cache.v, cache.table, cache.contexts}).out[0].values();
  CHECK(close(slice_of(got, 0, 32), cache.expected(slice_of(q, 0, 32), 2, false), 1e-3));
  CHECK(run(paged(), {rows, plain, plain, cache.table, cache.contexts}).status != NO_ERROR);
  std::unique_ptr<OpRules> rules;
  CHECK(make_rules(paged(), rules) == NO_ERROR && rules->host_inputs().empty());
  const Data beyond(ACL_INT32, {2}, {40, 16});
  CHECK_THROWS(run(paged(), {rows, cache.k, cache.v, cache.table, beyond}), "block table");
}

TEST(paged_attention_refuses_what_atb_refuses_and_throws_on_a_block_outside_of_the_cache) {
  const Cache cache;
  const Data rows(ACL_FLOAT16, {2, 2, 16});
  const Data beyond(ACL_INT32, {2}, {33, 16}), bad(ACL_INT32, {2}, {20, 17});
  CHECK(run(paged(), {rows, cache.k, cache.v, cache.table, beyond}).status == ERROR_INVALID_PARAM &&
        says("block table"));
  CHECK_THROWS(run(paged(), {rows, cache.k, cache.v, cache.table, bad}), "block 77");
  const Data odd(ACL_FLOAT16, {4, 8, 1, 16}), wide(ACL_FLOAT16, {4, 128, 1, 320}), wide_rows(ACL_FLOAT16, {2, 2, 320});
  CHECK(run(paged(), {rows, odd, odd, cache.table, cache.contexts}).status == ERROR_INVALID_TENSOR_DIM &&
        says("multiple of 16"));
  CHECK(run(paged(), {wide_rows, wide, wide, cache.table, cache.contexts}).status == NO_ERROR);
  const Data mask(ACL_FLOAT16, {20, 20}), queries(ACL_INT32, {2}, {1, 1});
  const std::vector<Data> spec = {wide_rows, wide, wide, cache.table, cache.contexts, mask, queries};
  CHECK(run(paged(Paged::MASK_TYPE_NORM, Paged::CALC_TYPE_SPEC), spec).status == ERROR_INVALID_TENSOR_DIM &&
        says("16384"));
  CHECK(run(paged(), {{ACL_FLOAT16, {3, 2, 16}}, cache.k, cache.v, cache.table, cache.contexts}).status ==
        ERROR_INVALID_TENSOR_DIM);
  CHECK(create(paged(Paged::MASK_TYPE_SPEC)) == ERROR_INVALID_PARAM);
  CHECK(create(paged(Paged::MASK_TYPE_MASK_FREE, Paged::CALC_TYPE_SPEC)) == ERROR_INVALID_PARAM && says("310P"));
  Paged param = paged();
  param.compressType = Paged::COMPRESS_TYPE_KVHEAD;
  CHECK(create(param) == ERROR_INVALID_PARAM && says("compressed"));
}

TEST(mask_free_is_one_block_on_310p_since_8_2) {
  const Soc soc("Ascend310P3");
  const Values q = some(16 * 16), k = some(144 * 16, 3), v = some(144 * 16, 4);
  // 128 keys of history and 16 new ones: NZ caches of one 16-channel column, so places follow each other.
  Data keys(ACL_FLOAT16, {2, 1, 128, 16}, k, ACL_FORMAT_FRACTAL_NZ),
      values(ACL_FLOAT16, {2, 1, 128, 16}, v, ACL_FORMAT_FRACTAL_NZ);
  const Data block(ACL_FLOAT16, {1, 8, 128, 16}, fractal(triangle(128, 128, -10000.0), 128, 128),
                   ACL_FORMAT_FRACTAL_NZ);
  const Data table(ACL_INT32, {1, 2}, {0, 1}), contexts(ACL_INT32, {1}, {144}), queries(ACL_INT32, {1}, {16});
  Paged param = paged(Paged::MASK_TYPE_MASK_FREE, Paged::CALC_TYPE_SPEC);
  param.headNum = 1;
  CHECK(create(paged(Paged::MASK_TYPE_NORM, Paged::CALC_TYPE_SPEC)) == ERROR_INVALID_PARAM && says("910B only"));
  const std::vector<Data> in = {{ACL_FLOAT16, {16, 1, 16}, q}, keys, values, table, contexts, block, queries};
  const auto late = [](size_t i, size_t j) { return causal(i + 128, j); };
  CHECK(close(run(param, in).out[0].values(), attention_of(q, k, v, 16, 144, 0.25, late), 1e-3));
  std::vector<Data> odd = in;
  odd[4] = Data(ACL_INT32, {1}, {143});
  CHECK(run(param, odd).status == ERROR_INVALID_PARAM && says("multiple of 128"));
  std::vector<Data> narrow = in;
  for (size_t i : {size_t{1}, size_t{2}}) narrow[i] = Data(ACL_FLOAT16, {4, 1, 64, 16}, {}, ACL_FORMAT_FRACTAL_NZ);
  narrow[3] = Data(ACL_INT32, {1, 4}, {0, 1, 2, 3});
  CHECK(run(param, narrow).status == ERROR_INVALID_TENSOR_DIM && says("blocks of 128 slots"));
  set_version("8.1.0");
  CHECK(create(param) == ERROR_INVALID_PARAM && says("8.2"));
  set_version("8.5.0");
}

TEST(a_mask_of_the_queries_has_either_format_on_310P) {
  const Soc soc("Ascend310P3");
  const Values q = some(3 * 16), k = some(32 * 16, 3), v = some(32 * 16, 4);
  const Data keys(ACL_FLOAT16, {2, 1, 16, 16}, k, ACL_FORMAT_FRACTAL_NZ),
      values(ACL_FLOAT16, {2, 1, 16, 16}, v, ACL_FORMAT_FRACTAL_NZ);
  Values rows = filled(3 * 32, 0.0), blocks = filled(16 * 32, 0.0);
  for (size_t i = 0; i < 3; ++i) {
    for (size_t j = 18 + i; j < 32; ++j) rows[i * 32 + j] = blocks[i * 32 + j] = -10000.0;
  }
  const Data table(ACL_INT32, {1, 2}, {0, 1}), contexts(ACL_INT32, {1}, {20});
  Paged param = paged(Paged::MASK_TYPE_SPEC, Paged::CALC_TYPE_SPEC);
  param.headNum = 1;
  const auto late = [](size_t i, size_t j) { return causal(i + 17, j); };
  const Values expected = attention_of(q, slice_of(k, 0, 20 * 16), slice_of(v, 0, 20 * 16), 3, 20, 0.25, late);
  for (const Data& mask : {Data(ACL_FLOAT16, {3, 32}, rows),
                           Data(ACL_FLOAT16, {1, 2, 16, 16}, fractal(blocks, 16, 32), ACL_FORMAT_FRACTAL_NZ)}) {
    const auto with = [&](double queries) {
      return run(param,
                 {{ACL_FLOAT16, {3, 1, 16}, q}, keys, values, table, contexts, mask, {ACL_INT32, {1}, {queries}}});
    };
    CHECK(close(with(3).out[0].values(), expected, 1e-3));
    CHECK_THROWS(with(0), "0 queries");
  }
}

TEST(an_alibi_mask_is_added_per_head_whatever_the_type) {
  const Values q = some(3 * 2 * 16), k = some(3 * 2 * 16, 2), v = some(3 * 2 * 16, 3), slopes = some(2 * 9, 5);
  infer::SelfAttentionParam param = encoder(SelfMask::MASK_TYPE_ALIBI);
  param.headNum = 2;
  const Data mask(ACL_BF16, {2, 3, 3}, slopes), lengths(ACL_INT32, {1}, {3});
  const Values got =
      run(param, {{ACL_BF16, {3, 2, 16}, q}, {ACL_BF16, {3, 2, 16}, k}, {ACL_BF16, {3, 2, 16}, v}, mask, lengths})
          .out[0]
          .values();
  const auto second = [](const Values& x) {
    Values out;
    for (size_t i = 0; i < 48; ++i) out.push_back(x[i / 16 * 32 + 16 + i % 16]);
    return out;
  };
  const auto bias = [&](size_t i, size_t j) { return slopes[9 + i * 3 + j]; };
  CHECK(close(second(got), attention_of(second(q), second(k), second(v), 3, 3, 0.25, bias), 1e-2));
}

TEST(lengths_without_host_data_are_refused) {
  std::unique_ptr<OpRules> rules;
  Kernel kernel;
  const Data x(ACL_FLOAT16, {4, 16}), lengths(ACL_INT32, {1}, {4});
  CHECK(make_rules(encoder(SelfMask::MASK_TYPE_UNDEFINED), rules) == NO_ERROR);
  CHECK(rules->host_inputs() == std::vector<uint32_t>{3});
  CHECK(rules->prepare({x.desc, x.desc, x.desc, lengths.desc}, {x.desc}, {nullptr, nullptr, nullptr, nullptr},
                       kernel) == ERROR_INVALID_PARAM);
  CHECK(says("hostData"));
  const Cache cache;
  CHECK(make_rules(paged(), rules) == NO_ERROR && rules->host_inputs() == std::vector<uint32_t>{4});
  const TensorDesc rows = describe(ACL_FLOAT16, {2, 2, 16});
  CHECK(rules->prepare({rows, cache.k.desc, cache.v.desc, cache.table.desc, cache.contexts.desc}, {rows},
                       std::vector<const int32_t*>(5, nullptr), kernel) == ERROR_INVALID_PARAM);
}

TEST_MAIN()
