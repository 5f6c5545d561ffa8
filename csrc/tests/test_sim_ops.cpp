// SPDX-License-Identifier: Apache-2.0
// The host simulator's Linear, RmsNorm, Rope and vector operations: results and refusals.
#include "sim_ops.h"

using namespace atb_core::test;

namespace {

Values matmul_of(const Values& x, const Values& w, size_t m, size_t n, size_t k) {  // w is [n, k]
  Values out(m * n, 0.0);
  for (size_t i = 0; i < m * n; ++i) {
    for (size_t j = 0; j < k; ++j) out[i] += x[i / n * k + j] * w[i % n * k + j];
  }
  return out;
}

infer::LinearParam linear(bool bias = false, bool transpose_b = true) {
  infer::LinearParam param;
  param.hasBias = bias;
  param.transposeB = transpose_b;
  return param;
}

}  // namespace

TEST(half_precision_numbers_survive_a_round_trip_and_round_to_nearest_even) {
  bool same = true;
  for (uint32_t bits = 0; bits < 0x10000; ++bits) {
    const auto half = static_cast<uint16_t>(bits);
    if (!std::isnan(from_f16(half))) same = same && to_f16(from_f16(half)) == half;
    if (!std::isnan(from_bf16(half))) same = same && to_bf16(from_bf16(half)) == half;
  }
  CHECK(same);
  CHECK(from_f16(0x3C00) == 1.0f && from_f16(0x0001) == 0x1p-24f && from_f16(0xFC00) < -1e38f);
  CHECK(to_f16(1.0f + 0x1p-11f) == 0x3C00 && to_f16(1.0f + 3 * 0x1p-11f) == 0x3C02);
  CHECK(to_f16(65519.9f) == 0x7BFF && to_f16(65520.0f) == 0x7C00 && to_f16(0x1p-25f) == 0 && to_f16(0x1.8p-25f) == 1);
  CHECK(to_bf16(1.0f + 0x1p-8f) == 0x3F80 && to_bf16(1.0f + 3 * 0x1p-8f) == 0x3F82 && to_bf16(3.4e38f) == 0x7F80);
  CHECK(std::isnan(from_f16(to_f16(std::nanf("")))) && std::isnan(from_bf16(to_bf16(std::nanf("")))));
}

TEST(linear_multiplies_in_every_layout_of_the_weight) {
  const size_t m = 3, n = 32, k = 48;
  const Values x = some(m * k), w = some(n * k, 2), expected = matmul_of(x, w, m, n, k);
  for (aclDataType dtype : {ACL_FLOAT16, ACL_BF16, ACL_FLOAT}) {
    const double tolerance = dtype == ACL_FLOAT ? 1e-6 : dtype == ACL_FLOAT16 ? 1e-3 : 1e-2;
    const Data a(dtype, {3, 48}, x);
    CHECK(close(run(linear(), {a, {dtype, {32, 48}, w}}).out[0].values(), expected, tolerance));
    if (dtype == ACL_FLOAT) continue;
    const Data kn(dtype, {48, 32}, turned(w, n, k));
    CHECK(close(run(linear(false, false), {a, kn}).out[0].values(), expected, tolerance));
    const Data nz(dtype, {1, 3, 32, 16}, fractal(w, n, k), ACL_FORMAT_FRACTAL_NZ);
    CHECK(close(run(linear(), {a, nz}).out[0].values(), expected, tolerance));
    const Data kn_nz(dtype, {1, 2, 48, 16}, fractal(turned(w, n, k), k, n), ACL_FORMAT_FRACTAL_NZ);
    CHECK(close(run(linear(false, false), {a, kn_nz}).out[0].values(), expected, tolerance));
    const Data flat_nz(dtype, {32, 48}, fractal(w, n, k), ACL_FORMAT_FRACTAL_NZ);
    CHECK(close(run(linear(), {a, flat_nz}).out[0].values(), expected, tolerance));
  }
}

TEST(linear_adds_a_bias_accumulates_in_place_and_takes_batches) {
  const Values x = some(2 * 20), w = some(5 * 20, 2), bias = some(5, 3);
  Values expected = matmul_of(x, w, 2, 5, 20);
  const Data a(ACL_BF16, {2, 20}, x), b(ACL_BF16, {5, 20}, w), start(ACL_FLOAT, {2, 5}, filled(10, 100.0));
  infer::LinearParam accumulate = linear();
  accumulate.enAccum = true;
  Result result = run(accumulate, {a, b, start});
  CHECK(result.out[0].desc.dtype == ACL_FLOAT);
  for (double& value : expected) value += 100.0;
  CHECK(close(result.out[0].values(), expected));
  for (size_t i = 0; i < expected.size(); ++i) expected[i] += bias[i % 5] - 100.0;
  for (aclDataType dtype : {ACL_BF16, ACL_FLOAT}) {
    CHECK(close(run(linear(true), {a, b, {dtype, {1, 5}, bias}}).out[0].values(), expected, 1e-2));
  }
  const Values batches = some(2 * 3 * 20), weights = some(2 * 5 * 20, 5);
  result = run(linear(), {{ACL_FLOAT16, {2, 3, 20}, batches}, {ACL_FLOAT16, {2, 5, 20}, weights}});
  CHECK(sizes(result.out[0].desc) == Sizes({2, 3, 5}));
  CHECK(close(slice_of(result.out[0].values(), 15, 15),
              matmul_of(slice_of(batches, 60, 60), slice_of(weights, 100, 100), 3, 5, 20), 1e-3));
  infer::LinearParam turn = linear();
  turn.transposeA = true;
  result = run(turn, {{ACL_FLOAT16, {20, 2}, turned(x, 2, 20)}, {ACL_FLOAT16, {5, 20}, w}});
  CHECK(close(result.out[0].values(), matmul_of(x, w, 2, 5, 20), 1e-3));
}

TEST(a_910b_adds_a_bias_of_the_type_of_x_to_the_rounded_product) {
  // 2049 lies between two float16 numbers, of which 2048 is the nearest even one.
  const Data x(ACL_FLOAT16, {1, 2}, {2048, 1}), w(ACL_FLOAT16, {1, 2}, {1, 1});
  const auto sum = [&](aclDataType bias) { return run(linear(true), {x, w, {bias, {1}, {1}}}).out[0].values(); };
  CHECK(sum(ACL_FLOAT16) == Values({2048}));
  CHECK(sum(ACL_FLOAT) == Values({2050}));
  const Soc soc("Ascend310P3");
  CHECK(sum(ACL_FLOAT16) == Values({2050}));
}

TEST(linear_in_float32_takes_rows_and_a_weight_in_rows_alone) {
  const Data x(ACL_FLOAT, {2, 32}), w(ACL_FLOAT, {16, 32});
  CHECK(run(linear(), {x, w}).status == NO_ERROR);
  CHECK(run(linear(false, false), {x, {ACL_FLOAT, {32, 16}}}).status == ERROR_INVALID_PARAM && says("float32 takes"));
  infer::LinearParam turned = linear();
  turned.transposeA = true;
  CHECK(run(turned, {{ACL_FLOAT, {32, 2}}, w}).status == ERROR_INVALID_PARAM);
  CHECK(run(linear(), {{ACL_FLOAT, {3, 2, 32}}, w}).status == ERROR_INVALID_PARAM);
  CHECK(run(linear(), {{ACL_FLOAT, {3, 2, 32}}, {ACL_FLOAT, {3, 16, 32}}}).status == ERROR_INVALID_PARAM);
}

TEST(a_weight_of_linear_has_the_batches_of_x_or_no_batch) {
  const Data x(ACL_FLOAT16, {2, 3, 32});
  const auto status = [&](const Sizes& weight) { return run(linear(), {x, {ACL_FLOAT16, weight}}).status; };
  CHECK(status({16, 32}) == NO_ERROR && status({2, 16, 32}) == NO_ERROR);
  CHECK(status({1, 16, 32}) == ERROR_INVALID_TENSOR_DIM && says("2 batches"));
  CHECK(run(linear(), {{ACL_FLOAT16, {1, 3, 32}}, {ACL_FLOAT16, {1, 16, 32}}}).status == NO_ERROR);
  infer::LinearParam turned = linear();
  turned.transposeA = true;
  const Data columns(ACL_FLOAT16, {2, 32, 3});
  CHECK(run(turned, {columns, {ACL_FLOAT16, {2, 16, 32}}}).status == NO_ERROR);
  CHECK(run(turned, {columns, {ACL_FLOAT16, {16, 32}}}).status == ERROR_INVALID_TENSOR_DIM && says("transposeA"));
  const auto biased = [&](const Sizes& weight, const Sizes& bias) {
    return run(linear(true), {x, {ACL_FLOAT16, weight}, {ACL_FLOAT16, bias}}).status;
  };
  CHECK(biased({2, 16, 32}, {2, 16}) == NO_ERROR && biased({16, 32}, {1, 16}) == NO_ERROR);
  CHECK(biased({16, 32}, {2, 16}) == ERROR_INVALID_TENSOR_DIM && says("batch of the weight"));
}

TEST(a_row_of_linear_does_not_depend_on_the_other_rows) {
  const Values x = some(7 * 100), w = some(33 * 100, 2);
  const Data weight(ACL_FLOAT, {33, 100}, w);
  const Values all = run(linear(), {{ACL_FLOAT, {7, 100}, x}, weight}).out[0].values();
  const Values one = run(linear(), {{ACL_FLOAT, {1, 100}, slice_of(x, 300, 100)}, weight}).out[0].values();
  CHECK(slice_of(all, 99, 33) == one);
}

TEST(linear_refuses_what_atb_refuses) {
  infer::LinearParam param;
  CHECK(param.hasBias);  // the default that surprises
  const Data x(ACL_FLOAT16, {2, 32}), w(ACL_FLOAT16, {16, 32});
  CHECK(run(param, {x, w}).status == ERROR_INVALID_TENSOR_NUM);
  CHECK(run(linear(), {x, {ACL_FLOAT16, {32, 16}}}).status == ERROR_INVALID_TENSOR_DIM && says("k = 32"));
  CHECK(run(linear(), {x, {ACL_BF16, {16, 32}}}).status == ERROR_INVALID_TENSOR_INI_MATCH && says("bfloat16"));
  CHECK(run(linear(), {x, {ACL_FLOAT16, {1, 16, 32}}}).status == ERROR_INVALID_TENSOR_DIM);
  CHECK(run(linear(), {x, {ACL_FLOAT16, {16, 32}, {}, ACL_FORMAT_NCHW}}).status == ERROR_INVALID_TENSOR_INI_MATCH);
  const Data f32(ACL_FLOAT, {2, 32}), f32_w(ACL_FLOAT, {16, 32}), f32_bias(ACL_FLOAT, {16});
  CHECK(run(linear(true), {f32, f32_w, f32_bias}).status == ERROR_INVALID_TENSOR_INI_MATCH);
  CHECK(run(linear(true), {x, w, {ACL_FLOAT16, {15}}}).status == ERROR_INVALID_TENSOR_DIM);
  CHECK(run(linear(), {x, w}, {describe(ACL_FLOAT16, {2, 15})}).status == ERROR_INVALID_TENSOR_DIM);
  CHECK(run(linear(), {x, w}, {describe(ACL_FLOAT, {2, 16})}).status == ERROR_INVALID_TENSOR_INI_MATCH);
  param = linear();
  param.rsv[20] = 1;
  CHECK(create(param) == ERROR_INVALID_PARAM && says("reserved byte 20"));
  param = linear();
  param.outDataType = ACL_FLOAT16;
  CHECK(run(param, {x, w, x}).status != NO_ERROR);  // floats have no scales
  param = linear(true);
  param.enAccum = true;
  CHECK(create(param) == ERROR_INVALID_PARAM);
  for (const char* name : {"Ascend910A", "Ascend910B"}) {
    const Soc soc(name);
    CHECK(run(linear(), {x, w}).status == ERROR_INVALID_TENSOR_INI_MATCH && says("does not exist on this chip"));
  }
  for (const char* name : {"Ascend910B4", "Ascend910_9392"}) {
    const Soc soc(name);
    CHECK(run(linear(), {x, w}).status == NO_ERROR);
  }
  const Soc soc("Ascend310P3");
  CHECK(run(linear(), {f32, f32_w}).status == ERROR_INVALID_TENSOR_INI_MATCH && says("310P"));
  CHECK(run(linear(), {{ACL_BF16, {2, 32}}, {ACL_BF16, {16, 32}}}).status == ERROR_INVALID_TENSOR_INI_MATCH);
}

TEST(rms_norm_normalises_and_returns_the_sum_it_has_made) {
  infer::RmsNormParam param;
  param.layerType = infer::RmsNormParam::RMS_NORM_NORM;
  const Values x = some(2 * 32), gamma = some(32, 3), residual = some(2 * 32, 7);
  const auto norm = [&](const Values& in) {
    Values out(in.size());
    for (size_t r = 0; r < 2; ++r) {
      double squares = 0.0;
      for (size_t i = 0; i < 32; ++i) squares += in[r * 32 + i] * in[r * 32 + i];
      for (size_t i = 0; i < 32; ++i) out[r * 32 + i] = in[r * 32 + i] * gamma[i] / std::sqrt(squares / 32 + 1e-5);
    }
    return out;
  };
  const Data a(ACL_FLOAT16, {2, 32}, x), g(ACL_FLOAT16, {32}, gamma), r(ACL_FLOAT16, {2, 32}, residual);
  CHECK(close(run(param, {a, g}).out[0].values(), norm(x), 1e-3));
  Values sum = x;
  for (size_t i = 0; i < sum.size(); ++i) sum[i] += residual[i];
  param.layerType = infer::RmsNormParam::RMS_NORM_PRENORM;
  Result result = run(param, {a, r, g});
  CHECK(result.out.size() == 2 && close(result.out[0].values(), norm(sum), 1e-3));
  CHECK(close(result.out[1].values(), sum, 1e-3));
  param.layerType = infer::RmsNormParam::RMS_NORM_POSTNORM;
  CHECK(close(run(param, {a, r, g}).out[0].values(), norm(sum), 1e-3));
  param.postNormParam.hasBias = true;
  const Data bias(ACL_FLOAT16, {32}, some(32, 9));
  for (size_t i = 0; i < sum.size(); ++i) sum[i] += some(32, 9)[i % 32];
  CHECK(close(run(param, {a, bias, r, g}).out[0].values(), norm(sum), 1e-3));
  param.layerType = infer::RmsNormParam::RMS_NORM_NORM;
  param.normParam.modelType = infer::RmsNormParam::GEMMA_MODEL;
  Values one_less = gamma;
  for (double& value : one_less) value -= 1.0;
  CHECK(close(run(param, {a, {ACL_FLOAT16, {1, 32}, one_less}}).out[0].values(), norm(x), 1e-3));
  param.normParam.modelType = infer::RmsNormParam::LLAMA_MODEL;
  param.normParam.rstd = true;
  result = run(param, {{ACL_FLOAT, {2, 32}, x}, {ACL_FLOAT, {32}, gamma}});
  CHECK(result.out.size() == 2 && sizes(result.out[1].desc) == Sizes({2, 1}));
  CHECK(close(result.out[0].values(), norm(x)));
}

TEST(rms_norm_refuses_what_atb_refuses) {
  infer::RmsNormParam param;
  CHECK(create(param) == ERROR_INVALID_PARAM && says("layerType"));
  param.layerType = infer::RmsNormParam::RMS_NORM_NORM;
  const Data x(ACL_FLOAT16, {2, 24}), g(ACL_FLOAT16, {24});
  CHECK(run(param, {x, g}).status == ERROR_INVALID_TENSOR_DIM && says("multiple of 32"));
  const Data single(ACL_FLOAT, {2, 32}), single_gamma(ACL_FLOAT, {32});
  CHECK(run(param, {single, single_gamma}).status == ERROR_INVALID_TENSOR_INI_MATCH && says("float32"));
  CHECK(run(param, {{ACL_FLOAT16, {2, 32}}, {ACL_FLOAT16, {16}}}).status == ERROR_INVALID_TENSOR_DIM);
  CHECK(run(param, {{ACL_FLOAT16, {2, 32}}, {ACL_FLOAT, {32}}}).status == ERROR_INVALID_TENSOR_INI_MATCH);
  param.postNormParam.epsilon = 0.0f;
  CHECK(create(param) == ERROR_INVALID_PARAM && says("2e-38"));
  param.postNormParam.epsilon = 1e-5f;
  param.preNormParam.rsv[0] = 1;
  CHECK(create(param) == ERROR_INVALID_PARAM);
  param.preNormParam.rsv[0] = 0;
  param.normParam.quantType = infer::QUANT_INT8;
  param.normParam.rstd = true;
  CHECK(create(param) == ERROR_INVALID_PARAM && says("do not combine"));
  param.normParam.rstd = false;
  param.normParam.quantType = infer::QUANT_INT4;
  CHECK(create(param) == ERROR_INVALID_PARAM && says("of INT8"));
  infer::RmsNormParam fast;
  fast.layerType = infer::RmsNormParam::RMS_NORM_NORM;
  fast.normParam.precisionMode = infer::RmsNormParam::HIGH_PERFORMANCE_MODE;
  CHECK(run(fast, {{ACL_FLOAT16, {2, 32}}, {ACL_FLOAT16, {32}}}).status == NO_ERROR);
  fast.normParam.modelType = infer::RmsNormParam::GEMMA_MODEL;
  CHECK(create(fast) == ERROR_INVALID_PARAM && says("do not combine"));
  fast.normParam.precisionMode = infer::RmsNormParam::HIGH_PRECISION_MODE;
  CHECK(create(fast) == NO_ERROR);
  fast.normParam.rstd = true;
  CHECK(create(fast) == ERROR_INVALID_PARAM && says("do not combine"));
  infer::RmsNormParam other;
  other.layerType = infer::RmsNormParam::RMS_NORM_PRENORM;
  other.postNormParam.hasBias = true;
  CHECK(create(other) == ERROR_INVALID_PARAM);
}

TEST(layer_norm_centres_and_scales_the_last_dimension) {
  infer::LayerNormParam param;
  param.layerType = infer::LayerNormParam::LAYER_NORM_NORM;
  param.normParam.beginNormAxis = param.normParam.beginParamsAxis = 1;
  const Values x = some(2 * 32), gamma = some(32, 3), beta = some(32, 5);
  Values expected(x.size());
  for (size_t r = 0; r < 2; ++r) {
    double mean = 0.0, variance = 0.0;
    for (size_t i = 0; i < 32; ++i) mean += x[r * 32 + i] / 32;
    for (size_t i = 0; i < 32; ++i) variance += (x[r * 32 + i] - mean) * (x[r * 32 + i] - mean) / 32;
    for (size_t i = 0; i < 32; ++i) {
      expected[r * 32 + i] = (x[r * 32 + i] - mean) / std::sqrt(variance + 1e-5) * gamma[i] + beta[i];
    }
  }
  for (aclDataType dtype : {ACL_FLOAT, ACL_FLOAT16, ACL_BF16}) {
    const Data a(dtype, {2, 32}, x), g(dtype, {32}, gamma), b(dtype, {1, 32}, beta);
    CHECK(close(run(param, {a, g, b}).out[0].values(), expected, dtype == ACL_FLOAT ? 1e-5 : 1e-2));
  }
  param.normParam.beginNormAxis = -1;
  CHECK(run(param, {{ACL_FLOAT16, {2, 32}}, {ACL_FLOAT16, {32}}, {ACL_FLOAT16, {32}}}).status == NO_ERROR);
}

TEST(layer_norm_refuses_what_is_not_there) {
  infer::LayerNormParam param;
  CHECK(create(param) == ERROR_INVALID_PARAM && says("layerType"));
  param.layerType = infer::LayerNormParam::LAYER_NORM_NORM;
  const auto status = [&](aclDataType x, aclDataType weight, int64_t width, int64_t beta) {
    return run(param, {{x, {2, width}}, {weight, {32}}, {weight, {beta}}}).status;
  };
  CHECK(status(ACL_FLOAT16, ACL_FLOAT16, 32, 32) == ERROR_INVALID_PARAM && says("the last dimension"));
  param.normParam.beginNormAxis = param.normParam.beginParamsAxis = 1;
  CHECK(status(ACL_FLOAT16, ACL_FLOAT16, 32, 32) == NO_ERROR);
  CHECK(status(ACL_FLOAT16, ACL_FLOAT, 32, 32) == ERROR_INVALID_TENSOR_INI_MATCH);
  CHECK(status(ACL_FLOAT16, ACL_FLOAT16, 48, 32) == ERROR_INVALID_TENSOR_DIM && says("input 1"));
  CHECK(status(ACL_FLOAT16, ACL_FLOAT16, 32, 16) == ERROR_INVALID_TENSOR_DIM && says("input 2"));
  CHECK(run(param, {{ACL_FLOAT16, {2, 24}}, {ACL_FLOAT16, {24}}, {ACL_FLOAT16, {24}}}).status ==
            ERROR_INVALID_TENSOR_DIM &&
        says("multiple of 32"));
  param.normParam.quantType = infer::QUANT_INT8;
  CHECK(create(param) == ERROR_INVALID_PARAM && says("no quantised"));
  param.normParam.quantType = infer::QUANT_UNQUANT;
  param.normParam.epsilon = -1.0f;
  CHECK(create(param) == ERROR_INVALID_PARAM && says("negative"));
  param.normParam.epsilon = 1e-5f;
  param.normParam.rsv[0] = 1;
  CHECK(create(param) == ERROR_INVALID_PARAM && says("reserved"));
  param.normParam.rsv[0] = 0;
  const Soc soc("Ascend310P3");
  CHECK(status(ACL_FLOAT16, ACL_FLOAT16, 32, 32) == NO_ERROR);
  CHECK(status(ACL_FLOAT, ACL_FLOAT, 32, 32) == ERROR_INVALID_TENSOR_INI_MATCH);
}

TEST(rope_rotates_halves_quarters_and_pairs) {
  const Values q = some(2 * 64), k = some(2 * 32, 3), cos = some(2 * 32, 5), sin = some(2 * 32, 7);
  const auto rotated = [&](const Values& x, size_t width, size_t coeff) {
    Values out(x.size());
    for (size_t i = 0; i < x.size(); ++i) {
      const size_t token = i / width, c = i % 32, part = 64 / coeff, place = c % part;
      const double other = place < part / 2 ? -x[i + part / 2] : x[i - part / 2];
      out[i] = x[i] * cos[token * 32 + c] + other * sin[token * 32 + c];
    }
    return out;
  };
  infer::RopeParam param;
  for (int coeff : {2, 4, 32}) {
    param.rotaryCoeff = coeff;
    for (aclDataType table : {ACL_FLOAT16, ACL_FLOAT}) {
      const Result result = run(param, {{ACL_FLOAT16, {2, 64}, q},
                                        {ACL_FLOAT16, {2, 32}, k},
                                        {table, {2, 32}, cos},
                                        {table, {2, 32}, sin},
                                        {ACL_INT32, {1}, {2}}});
      CHECK(close(result.out[0].values(), rotated(q, 64, static_cast<size_t>(coeff)), 1e-3));
      CHECK(close(result.out[1].values(), rotated(k, 32, static_cast<size_t>(coeff)), 1e-3));
    }
  }
}

TEST(rope_counts_positions_per_sequence_with_cos_format_1) {
  const Values q = some(3 * 16), cos = some(4 * 16, 5), sin = some(4 * 16, 7);
  infer::RopeParam param;
  param.rotaryCoeff = 2;
  const auto rotate = [&](const Data& table_cos, const Data& table_sin, const Data& lengths) {
    const Data x(ACL_FLOAT16, {1, 3, 1, 16}, q);
    return run(param, {x, x, table_cos, table_sin, lengths}).out[0].values();
  };
  const auto rows = [](const Values& x) {  // of the positions 0, 0, 1
    Values out(x.begin(), x.begin() + 16);
    out.insert(out.end(), x.begin(), x.begin() + 32);
    return out;
  };
  const Data lengths(ACL_INT32, {2}, {1, 2});
  const Values by_row = rotate({ACL_FLOAT16, {3, 16}, rows(cos)}, {ACL_FLOAT16, {3, 16}, rows(sin)}, lengths);
  param.cosFormat = 1;
  CHECK(rotate({ACL_FLOAT16, {4, 16}, cos}, {ACL_FLOAT16, {4, 16}, sin}, lengths) == by_row);
  CHECK_THROWS(rotate({ACL_FLOAT16, {1, 16}}, {ACL_FLOAT16, {1, 16}}, lengths), "seqLen");
}

TEST(rope_refuses_what_atb_refuses) {
  infer::RopeParam param;
  param.rotaryCoeff = 2;
  const Data q(ACL_FLOAT16, {2, 64}), k(ACL_FLOAT16, {2, 32}), cos(ACL_FLOAT16, {2, 32}), n(ACL_INT32, {1}, {2});
  CHECK(run(param, {q, k, cos, cos, n}).status == NO_ERROR);
  CHECK(run(param, {k, q, cos, cos, n}).status == ERROR_INVALID_TENSOR_DIM);
  const Data long_cos(ACL_FLOAT16, {3, 32}), narrow(ACL_FLOAT16, {2, 8}), f32(ACL_FLOAT, {2, 64});
  CHECK(run(param, {q, k, long_cos, long_cos, n}).status == NO_ERROR);
  const Data short_cos(ACL_FLOAT16, {1, 32});
  CHECK(run(param, {q, k, short_cos, short_cos, n}).status == ERROR_INVALID_TENSOR_DIM);
  CHECK(run(param, {q, k, narrow, narrow, n}).status == ERROR_INVALID_TENSOR_DIM && says("16..4096"));
  CHECK(run(param, {f32, f32, {ACL_FLOAT, {2, 64}}, {ACL_FLOAT, {2, 64}}, n}).status == ERROR_INVALID_TENSOR_INI_MATCH);
  param.rotaryCoeff = 8;
  CHECK(run(param, {q, k, cos, cos, n}).status == ERROR_INVALID_PARAM && says("rotaryCoeff 8"));
  param.rotaryCoeff = 2;
  param.cosFormat = 2;
  CHECK(create(param) == ERROR_INVALID_PARAM);
}
TEST_MAIN()
