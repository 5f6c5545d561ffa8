// SPDX-License-Identifier: Apache-2.0
// Lowering of integers of 8 bits: operations, layouts and limits.
#include "lowering_nodes.h"

using namespace atb_core;
using namespace atb_core::ascend;
using namespace atb_core::test;
using enum DataType;

namespace {

Node product(DataType out, DataType scale, bool bias = false, bool by_token = false) {
  Node node{"QuantLinear",
            {{"has_bias", bias}, {"has_token_scale", by_token}},
            {{i8, {0, 64}}, {i8, {48, 64}, TensorKind::weight}, {scale, {48}, TensorKind::weight}},
            {{out, {0, 48}}}};
  if (by_token) node.inputs.push_back({f32, {0}});
  if (bias) node.inputs.push_back({i32, {48}, TensorKind::weight});
  return node;
}

}  // namespace

TEST(a_product_of_integers_is_one_linear) {
  CHECK(names_of(product(bf16, f32)) == "Linear");
  CHECK(names_of(product(bf16, f32, true)) == "Linear");
  CHECK(names_of(product(f16, i64, true)) == "Linear");
  CHECK(names_of(product(f16, f32, false, true)) == "Linear");
  CHECK(names_of(product(f16, i64, true), kDuo) == "Linear");
  CHECK((Lowered(product(f16, i64, true), kDuo).get().layouts() == std::map<int, Layout>{{1, Layout::nz}}));
}

TEST(a_product_of_integers_says_what_atb_does_not_take) {
  REFUSED(product(f32, f32), kA2, "products of int8 are float16 or bfloat16");
  REFUSED(product(f16, f32), kA2, "the bits of a float32");
  REFUSED(product(bf16, i64), kA2, "the scale is int64, and has to be float32");
  REFUSED(product(bf16, f32, true, true), kA2, "add it to the result");
  REFUSED(product(f16, i64), kDuo, "give a bias of zeros");
  REFUSED(product(f16, f32, false, true), kDuo, "no products of int8 with token_scale");
  Node deep = product(bf16, f32, false, true);
  deep.inputs[0].shape = {2, 0, 64};
  REFUSED(deep, kA2, "reshape x first");
  Node odd = product(f16, i64, true);
  odd.inputs[0].shape = {0, 48};
  odd.inputs[1].shape = {48, 48};
  REFUSED(odd, kDuo, "16 and 32 as divisors");
}

TEST(activations_become_integers_by_elewise) {
  const auto given = [](DataType type, DataType scale) {
    return Node{"QuantPerChannel",
                {},
                {{type, {0, 64}}, {scale, {1}, TensorKind::weight}, {i8, {1}, TensorKind::weight}},
                {{i8, {0, 64}}}};
  };
  const auto dynamic = [](DataType type, int64_t width) {
    return Node{"DynamicQuant", {}, {{type, {0, width}}}, {{i8, {0, width}}, {f32, {0}}}};
  };
  CHECK(names_of(given(f16, f16)) == "Elewise");
  CHECK(names_of(dynamic(bf16, 7552)) == "Elewise");
  CHECK(names_of(dynamic(f16, 26624)) == "Elewise");
  REFUSED(given(bf16, f32), kA2, "the scale is float32, and has to be bfloat16");
  REFUSED(dynamic(bf16, 7553), kA2, "takes 7552 of bfloat16");
  REFUSED(dynamic(f16, 4097), kDuo, "takes 4096");
  REFUSED((Node{"DynamicQuant", {}, {{f16, {64}}}, {{i8, {64}}, {f32, {1}}}}), kA2, "reshape x first");
}

TEST_MAIN()
