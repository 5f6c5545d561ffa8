// SPDX-License-Identifier: Apache-2.0
// Lowering to calls of aclnn: weights of integers and mixtures of experts, with their limits both ways.
#include "lowering_nodes.h"

using namespace atb_core;
using namespace atb_core::ascend;
using namespace atb_core::test;
using enum DataType;

namespace {

using Formats = std::map<int, QuantFormat>;

Node matrix(DataType type, int64_t n, int64_t k, bool bias = false) {
  Node node{"Linear", {{"has_bias", bias}}, {{type, {0, k}}, {type, {n, k}, TensorKind::weight}}, {{type, {0, n}}}};
  if (bias) node.inputs.push_back({type, {n}, TensorKind::weight});
  return node;
}

// Names of the operations that a product with integers becomes; reports what the simulator does not take.
std::string product(const Node& node, const QuantFormat& format, const char* soc = kA2) {
  Lowered lowered(node, soc, Formats{{1, format}});
  const std::string what = lowered.disagreement();
  if (!what.empty()) report(__FILE__, __LINE__, what);
  return lowered.names();
}

void refused_product(const Node& node, const QuantFormat& format, const std::string& reason, int line,
                     const char* soc = kA2) {
  refused(node, soc, reason, line, Formats{{1, format}});
}

}  // namespace

#define REFUSED_PRODUCT(node, format, reason) refused_product(node, format, reason, __LINE__)

TEST(a_weight_of_integers_is_one_call) {
  const std::string call = "aclnnWeightQuantBatchMatmulV2";
  for (const DataType type : {f16, bf16}) {
    for (const int bits : {8, 4}) {
      for (const bool offsets : {false, true}) {
        CHECK(product(matrix(type, 48, 96), {bits, 0, offsets}) == call);
        CHECK(product(matrix(type, 48, 96), {bits, 32, offsets}) == call);
      }
    }
  }
  CHECK(product(matrix(f16, 65534, 64, true), {4, 32, true}) == call);
  CHECK(product(matrix(bf16, 48, 96, true), {8, 0, false}) == "Elewise, " + call);
  for (const bool offsets : {false, true}) CHECK(product(matrix(f16, 47, 95, true), {8, 0, offsets}, kDuo) == call);
}

TEST(a_weight_of_integers_that_the_call_does_not_take_is_refused) {
  for (const QuantFormat& format : {QuantFormat{4, 0}, QuantFormat{8, 32}, QuantFormat{4, 32, true}}) {
    refused_product(matrix(f16, 48, 96), format, "8 bits and a scale for each row", __LINE__, kDuo);
  }
  REFUSED_PRODUCT(matrix(f32, 48, 96), (QuantFormat{8, 0}), "activations are float16 or bfloat16");
  REFUSED_PRODUCT(matrix(f16, 65536, 96), (QuantFormat{8, 0}), "no size is above 65535");
  REFUSED_PRODUCT(matrix(f16, 48, 65568), (QuantFormat{8, 32}), "no size is above 65535");
  REFUSED_PRODUCT(matrix(f16, 48, 96), (QuantFormat{2, 0}), "integers have 8 or 4 bits");
  for (const int64_t group : {16, 48, 64, 96}) {
    REFUSED_PRODUCT(matrix(f16, 48, 96), (QuantFormat{8, group}), "a group is a multiple of 32 elements");
  }
  REFUSED_PRODUCT(matrix(f16, 47, 96), (QuantFormat{4, 32}), "integers of 4 bits lie in pairs");
  REFUSED_PRODUCT(matrix(f16, 48, 95), (QuantFormat{4, 0}), "integers of 4 bits lie in pairs");
  Node deep = matrix(f16, 48, 96);
  deep.inputs[0].shape = {2, 0, 96};
  deep.outputs[0].shape = {2, 0, 48};
  REFUSED_PRODUCT(deep, (QuantFormat{8, 0}), "reshape x first");
  Node rows{"Gather", {{"axis", int64_t{0}}}, {{f16, {48, 96}, TensorKind::weight}, {i32, {0}}}, {{f16, {0, 96}}}};
  refused(rows, kA2, "only the matrix of a Linear", __LINE__, Formats{{0, {8, 0}}});
}

TEST(experts_are_calls) {
  CHECK(names_of(gating(f32)) == "aclnnMoeGatingTopKSoftmaxV2");
  CHECK(names_of(gating(bf16, 1024)) == "Elewise, aclnnMoeGatingTopKSoftmaxV2");
  CHECK(names_of(routing(f16)) == "aclnnMoeInitRoutingV2, Elewise");
  for (const bool transpose : {false, true}) {
    CHECK(names_of(grouped(f16, transpose, true)) == "aclnnGroupedMatmulV4");
    CHECK(names_of(grouped(bf16, transpose, true)) == "Elewise, aclnnGroupedMatmulV4");
    CHECK(names_of(grouped(f32, transpose, true)) == "aclnnGroupedMatmulV4");
  }
  CHECK(names_of(unpermute(bf16)) == "aclnnMoeTokenUnpermute");
}

TEST(experts_that_the_calls_do_not_take_are_refused) {
  for (const Node& node : {gating(f16), routing(f16), grouped(f16, true, false), unpermute(f16)}) {
    REFUSED(node, kDuo, "calls of aclnn that are not on this device");
  }
  REFUSED(gating(f16, 1025), kA2, "topk_num is 1025; the call takes 1024");
  Node numbered = gating(f16);
  numbered.outputs[2].kind = TensorKind::output;
  REFUSED(numbered, kA2, "something reads row_idx");
  REFUSED(grouped(f16, true, false, 1025), kA2, "1025 experts");
  Node wide = grouped(f16, true, false);
  wide.inputs[0].shape = {0, 65536};
  wide.inputs[1].shape = {8, 32, 65536};
  REFUSED(wide, kA2, "rows of the weight have 65536 elements");
  REFUSED(unpermute(f16, 513), kA2, "a token has 513 experts");
}

TEST(a_call_that_the_library_lacks_is_refused_by_name) {
  ::atb::sim::inject("dlsym", 0, 1);
  REFUSED(routing(f16), kA2, "libopapi.so of CANN has no aclnnMoeInitRoutingV2GetWorkspaceSize");
  ::atb::sim::inject("dlsym", 2, 1);
  REFUSED(routing(f16), kA2, "has no aclCreateTensor");
}

TEST_MAIN()
