// SPDX-License-Identifier: Apache-2.0
// The simulator's operations on integers of 8 bits: what they compute and what they refuse.
#include <bit>

#include "sim_ops.h"

using namespace atb_core::test;
using infer::ElewiseParam;
using infer::LinearParam;

namespace {

ElewiseParam elewise(ElewiseParam::ElewiseType type) {
  ElewiseParam param;
  param.elewiseType = type;
  return param;
}

LinearParam product(aclDataType out, bool bias = false, bool by_token = false) {
  LinearParam param;
  param.hasBias = bias;
  param.outDataType = out;
  if (by_token) param.quantMode = LinearParam::PER_TOKEN;
  return param;
}

double bits(float scale) { return std::bit_cast<uint32_t>(scale); }

const Data kX(ACL_INT8, {2, 3}, {1, -2, 3, 127, 0, -128});
const Data kWeight(ACL_INT8, {2, 3}, {2, 2, -1, 1, 0, 1});

}  // namespace

TEST(given_scales_round_to_even_and_clamp) {
  const auto quantise = elewise(ElewiseParam::ELEWISE_QUANT_PER_CHANNEL);
  const Data x(ACL_FLOAT16, {2, 3}, {0.25, 0.75, -1.25, 100, -100, 1}), scale(ACL_FLOAT16, {1}, {0.5});
  const Result one = run(quantise, {x, scale, Data(ACL_INT8, {1}, {2})});
  CHECK(one.out[0].values() == Values({2, 4, 0, 127, -128, 4}));
  const Data scales(ACL_FLOAT16, {3}, {0.5, 1, 2}), offsets(ACL_INT8, {3}, {0, 1, -1});
  CHECK(run(quantise, {x, scales, offsets}).out[0].values() == Values({0, 2, -2, 127, -99, 0}));
  CHECK(run(quantise, {x, scales, Data(ACL_INT8, {1}, {2})}).status == ERROR_INVALID_TENSOR_DIM);
  CHECK(run(quantise, {x, Data(ACL_FLOAT, {1}, {1}), Data(ACL_INT8, {1})}).status == ERROR_INVALID_TENSOR_INI_MATCH);
}

TEST(norms_become_integers_behind_their_bias) {
  infer::RmsNormParam param;
  param.layerType = infer::RmsNormParam::RMS_NORM_NORM;
  param.normParam.quantType = infer::QUANT_INT8;
  const Values ones(16, 1.0), twos(16, 2.0);
  const Data x(ACL_FLOAT16, {2, 16}, Values(32, 3.0)), gamma(ACL_FLOAT16, {16}, twos), beta(ACL_FLOAT16, {16}, ones);
  const Data scale(ACL_FLOAT16, {1}, {0.5}), offset(ACL_INT8, {1}, {-4});
  // (1 * 2 + 1) / 0.5 - 4
  CHECK(run(param, {x, gamma, beta, scale, offset}).out[0].values() == Values(32, 2.0));
  const Data wrong(ACL_FLOAT16, {2}, {1, 1});
  CHECK(run(param, {x, gamma, beta, wrong, offset}).status == ERROR_INVALID_TENSOR_DIM && says("do not fit"));
  const Data brain(ACL_BF16, {2, 16}, Values(32, 3.0)), brain_gamma(ACL_BF16, {16}, twos);
  CHECK(run(param, {brain, brain_gamma, beta, scale, offset}).status == ERROR_INVALID_TENSOR_INI_MATCH);
  param.layerType = infer::RmsNormParam::RMS_NORM_PRENORM;
  param.preNormParam.quantType = infer::QUANT_INT8;
  const Result sum = run(param, {x, x, gamma, beta, scale, offset});
  CHECK(sum.out.size() == 2 && sum.out[0].values() == Values(32, 2.0) && sum.out[1].values() == Values(32, 6.0));
  param.preNormParam.hasBias = true;
  CHECK(create(param) == ERROR_INVALID_PARAM && says("no bias"));
}

TEST(rows_have_scales_of_their_own) {
  const auto quantise = elewise(ElewiseParam::ELEWISE_DYNAMIC_QUANT);
  const Result made = run(quantise, {Data(ACL_FLOAT16, {2, 2}, {127, -2.5, 0, 0})});
  CHECK(made.out[0].values() == Values({127, -2, 0, 0}));
  CHECK(made.out[1].values() == Values({1, 0}));
  CHECK(run(quantise, {Data(ACL_FLOAT16, {4})}).status == ERROR_INVALID_TENSOR_DIM_NUM);
  CHECK(run(quantise, {Data(ACL_FLOAT16, {1, 26625})}).status == ERROR_INVALID_TENSOR_DIM && says("26624"));
  CHECK(run(quantise, {Data(ACL_BF16, {1, 7553})}).status == ERROR_INVALID_TENSOR_DIM);
  const Soc duo("Ascend310P3");
  CHECK(run(quantise, {Data(ACL_FLOAT16, {1, 4097})}).status == ERROR_INVALID_TENSOR_DIM);
  ElewiseParam uneven = quantise;
  uneven.quantParam.asymmetric = true;
  CHECK(create(uneven) == ERROR_INVALID_PARAM && says("symmetric"));
}

TEST(products_of_integers_are_scaled_behind_the_bias) {
  const Data scale(ACL_FLOAT, {2}, {0.5, 2}), half(ACL_INT64, {2}, {bits(0.5F), bits(2)});
  const Data bias(ACL_INT32, {2}, {10, -1});
  CHECK(run(product(ACL_BF16), {kX, kWeight, scale}).out[0].values() == Values({-2.5, 8, 191, -2}));
  CHECK(run(product(ACL_FLOAT16), {kX, kWeight, half}).out[0].values() == Values({-2.5, 8, 191, -2}));
  CHECK(run(product(ACL_BF16, true), {kX, kWeight, bias, scale}).out[0].values() == Values({2.5, 6, 196, -4}));
  const Data tokens(ACL_FLOAT, {2}, {2, 0.5});
  CHECK(run(product(ACL_FLOAT16, false, true), {kX, kWeight, scale, tokens}).out[0].values() ==
        Values({-5, 16, 95.5, -1}));
  LinearParam turned = product(ACL_BF16);
  turned.transposeB = false;
  const Data kn(ACL_INT8, {3, 2}, {2, 1, 2, 0, -1, 1});
  CHECK(run(turned, {kX, kn, scale}).out[0].values() == Values({-2.5, 8, 191, -2}));
}

TEST(products_of_integers_refuse_what_atb_refuses) {
  const Data scale(ACL_FLOAT, {2}, {1, 1}), tokens(ACL_FLOAT, {2}, {1, 1}), bias(ACL_INT32, {2});
  CHECK(run(product(ACL_FLOAT16), {kX, kWeight, scale}).status == ERROR_INVALID_TENSOR_INI_MATCH);
  CHECK(run(product(ACL_BF16), {kX, kWeight, Data(ACL_FLOAT, {3})}).status == ERROR_INVALID_TENSOR_DIM);
  CHECK(create(product(ACL_FLOAT)) == ERROR_INVALID_PARAM && says("outDataType"));
  CHECK(create(product(ACL_BF16, true, true)) == ERROR_INVALID_PARAM && says("excludes hasBias"));
  const Data deep(ACL_INT8, {1, 2, 3});
  CHECK(run(product(ACL_BF16, false, true), {deep, kWeight, scale, tokens}).status == ERROR_INVALID_TENSOR_DIM);
  LinearParam turned = product(ACL_BF16);
  turned.transposeA = true;
  CHECK(create(turned) == ERROR_INVALID_PARAM);
}

TEST(a_310P_takes_a_bias_and_a_weight_in_blocks_of_32) {
  const Soc duo("Ascend310P3");
  CHECK(create(product(ACL_FLOAT16)) == ERROR_INVALID_PARAM && says("hasBias"));
  CHECK(create(product(ACL_FLOAT16, false, true)) == ERROR_INVALID_PARAM);
  constexpr size_t kN = 16, kK = 64;
  Values weight, blocks(kN * kK), x(kK, 1), sums(kN), scales(kN, bits(1));
  for (size_t i = 0; i < kN * kK; ++i) {
    weight.push_back(static_cast<double>(i % 11) - 5);
    blocks[((i % kK) / 32 * kN + i / kK) * 32 + i % 32] = weight[i];
    sums[i / kK] += weight[i];
  }
  const Data packed(ACL_INT8, {1, 2, kN, 32}, blocks, ACL_FORMAT_FRACTAL_NZ), bias(ACL_INT32, {kN});
  const Data scale(ACL_INT64, {kN}, scales), ones(ACL_INT8, {1, kK}, x);
  CHECK(run(product(ACL_FLOAT16, true), {ones, packed, bias, scale}).out[0].values() == sums);
}

TEST_MAIN()
