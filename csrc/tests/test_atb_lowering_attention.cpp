// SPDX-License-Identifier: Apache-2.0
// Lowering of attention, its caches, masks and rotary embeddings: layouts, limits, what is read on the host.
#include <set>

#include "lowering_nodes.h"

using namespace atb_core;
using namespace atb_core::ascend;
using namespace atb_core::test;
using enum DataType;

TEST(lengths_are_read_on_the_host_where_the_kernels_do_not_read_them) {
  CHECK(Lowered(self_attention(f16, true), kA2).get().host_inputs() == std::set<int>{4});
  CHECK(Lowered(self_attention(f16, true), kDuo).get().host_inputs() == std::set<int>{4});
  CHECK(Lowered(paged_attention(f16), kA2).get().host_inputs() == std::set<int>{4});
  CHECK(Lowered(paged_attention(f16), kDuo).get().host_inputs().empty());
  CHECK((Lowered(spec_attention(f16), kA2).get().host_inputs() == std::set<int>{4, 6}));
}

TEST(a_310P_takes_weights_caches_and_masks_in_blocks_and_a_910B_nothing) {
  using Layouts = std::map<int, Layout>;
  const Node cache = {
      "ReshapeAndCache",
      {},
      {{f16, {0, 2, 64}}, {f16, {0, 2, 64}}, {f16, {9, 128, 2, 64}}, {f16, {9, 128, 2, 64}}, {i32, {0}}},
      {}};
  CHECK(Lowered(linear(f16), kDuo).get().layouts() == (Layouts{{1, Layout::nz}}));
  CHECK(Lowered(self_attention(f16, true), kDuo).get().layouts() == (Layouts{{3, Layout::nz}}));
  CHECK(Lowered(paged_attention(f16), kDuo).get().layouts() == (Layouts{{1, Layout::nz}, {2, Layout::nz}}));
  CHECK(Lowered(cache, kDuo).get().layouts() == (Layouts{{2, Layout::nz}, {3, Layout::nz}}));
  for (const Node& node : {linear(f16), self_attention(bf16, true), spec_attention(f16), cache}) {
    CHECK(Lowered(node, kA2).get().layouts().empty());
  }
}

TEST(a_310P_caches_heads_in_steps_of_16_and_int8_too) {
  const auto cache = [](DataType type, int64_t key, int64_t value) {
    return Node{
        "ReshapeAndCache",
        {},
        {{type, {0, 2, key}}, {type, {0, 2, value}}, {type, {9, 128, 2, key}}, {type, {9, 128, 2, value}}, {i32, {0}}},
        {}};
  };
  CHECK(names_of(cache(f16, 48, 48), kDuo) == "ReshapeAndCache");
  CHECK(names_of(cache(i8, 64, 64), kDuo) == "ReshapeAndCache");
  REFUSED(cache(f16, 64, 32), kDuo, "they must be equal");
  REFUSED(cache(f16, 40, 40), kDuo, "the head size 40 is no multiple of 16");
  for (const Node& node : {cache(i8, 64, 64), cache(f16, 64, 32), cache(f16, 40, 40)}) {
    CHECK(names_of(node) == "ReshapeAndCache");
  }
  Node uneven = cache(f16, 64, 64);
  uneven.inputs[1].shape[1] = uneven.inputs[3].shape[2] = 1;
  REFUSED(uneven, kA2, "k has 2 heads and v 1");
}

TEST(attention_of_float16_keeps_float_scores_where_the_device_can) {
  using Layouts = std::map<int, Layout>;
  // The kernel of high precision reads 1 as hidden, so the triangle is given to it in ones.
  CHECK(Lowered(self_attention(f16, true), kA2).get().layouts() == (Layouts{{3, Layout::ones}}));
  CHECK(Lowered(self_attention(bf16, true), kA2).get().layouts().empty());
  CHECK(Lowered(self_attention(f16, false), kA2).get().layouts().empty());
  CHECK(Lowered(self_attention(f16, true), kDuo).get().layouts() == (Layouts{{3, Layout::nz}}));
}

TEST(blocks_of_a_cache_fit_its_heads) {
  const auto of = [](int64_t head, int64_t block, bool several) {
    Node node = several ? spec_attention_by_token(f16) : paged_attention(f16);
    for (Tensor* tensor : {&node.inputs[0], &node.outputs[0]}) tensor->shape[2] = head;
    for (int cache : {1, 2}) node.inputs[static_cast<size_t>(cache)].shape = {9, block, 2, head};
    return node;
  };
  for (const char* soc : {kA2, kDuo}) {
    for (bool several : {false, true}) {
      CHECK(names_of(of(128, 128, several), soc) == "PagedAttention");
      for (int64_t head : {160, 192, 256}) CHECK(names_of(of(head, 64, several), soc) == "PagedAttention");
      REFUSED(of(160, 128, several), soc, "takes at most 96 for heads of 160");
      REFUSED(of(192, 128, several), soc, "takes at most 80 for heads of 192");
      REFUSED(of(128, 256, several), soc, "choose another block size");
      REFUSED(of(64, 24, several), soc, "takes multiples of 16");
    }
    REFUSED(of(64, 512, false), soc, "takes at most 256 for heads of 64");
    REFUSED(of(64, 256, true), soc, "at most 128 for heads of 64 and several new tokens");
    REFUSED(of(256, 96, false), soc, "at most 64 for heads of 256");
  }
  CHECK(names_of(of(64, 256, false)) == "PagedAttention" && names_of(of(256, 128, false)) == "PagedAttention");
  CHECK(names_of(of(320, 128, false)) == "PagedAttention");
  REFUSED(of(256, 144, false), kA2, "or a multiple of 128");
  REFUSED(of(320, 144, false), kA2, "at most 128 for heads of 320");
  REFUSED(of(256, 128, false), kDuo, "at most 64 for heads of 256");
}

TEST(rope_takes_halves_or_neighbours) {
  Node rope = {"Rope",
               {{"rotary_coeff", int64_t{32}}},
               {{f16, {0, 128}}, {f16, {0, 64}}, {f32, {0, 32}}, {f32, {0, 32}}, {i32, {3}}},
               {{f16, {0, 128}}, {f16, {0, 64}}}};
  CHECK(names_of(rope) == "Rope");
  rope.attributes["rotary_coeff"] = int64_t{8};
  REFUSED(rope, kA2, "rotary_coeff is 8");
  rope.attributes["rotary_coeff"] = int64_t{2};
  rope.inputs[1].shape = rope.outputs[1].shape = {0, 96};
  REFUSED(rope, kA2, "no multiple of k's 96");
  rope.inputs[4].dtype = i64;
  REFUSED(rope, kA2, "seqlen is int64");
}

TEST(masks_that_atb_reads_otherwise_are_refused) {
  CHECK(names_of(self_attention(f16, false)) == "SelfAttention");
  REFUSED(self_attention(bf16, false), kA2, "use is_triu_mask");
  Node plain = self_attention(f16, true);
  plain.attributes["mask_type"] = Text("MASK_TYPE_UNDEFINED");
  plain.inputs.erase(plain.inputs.begin() + 3);
  REFUSED(plain, kA2, "is_triu_mask needs a mask");
  plain.attributes["is_triu_mask"] = false;
  CHECK(names_of(plain) == "SelfAttention");
  Node wide = self_attention(f16, true);
  wide.inputs[3].dtype = f32;
  REFUSED(wide, kA2, "the mask is float32");
  Node bare = spec_attention(f16);
  bare.attributes["mask_type"] = Text("MASK_TYPE_UNDEFINED");
  bare.inputs.erase(bare.inputs.begin() + 5);
  REFUSED(bare, kA2, "ATB needs a mask");
  Node decode = paged_attention(f16);
  decode.attributes["mask_type"] = Text("MASK_TYPE_NORM");
  decode.inputs.push_back({f16, {256, 256}});
  REFUSED(decode, kA2, "the mask has 2 dimensions");
  decode.inputs.back().shape = {0, 1, 256};
  CHECK(names_of(decode) == "PagedAttention");
  REFUSED(decode, kDuo, "there one token takes no mask");
  decode.attributes["mask_type"] = Text("MASK_TYPE_SPEC");
  REFUSED(decode, kA2, "one token of each sequence takes MASK_TYPE_NORM or MASK_TYPE_ALIBI");
}

TEST(masks_with_values_of_heads_stay_in_rows_and_triangles_have_one_size) {
  Node alibi = self_attention(bf16, false);
  alibi.attributes["mask_type"] = Text("MASK_TYPE_ALIBI");
  alibi.inputs[3].shape = {4, 256, 256};
  CHECK(names_of(alibi) == "SelfAttention");
  for (Tensor& tensor : alibi.inputs) tensor.dtype = tensor.dtype == bf16 ? f16 : tensor.dtype;
  for (Tensor& tensor : alibi.outputs) tensor.dtype = f16;
  for (const char* soc : {kA2, kDuo}) CHECK(Lowered(alibi, soc).get().layouts().empty());
  Node compressed = self_attention(f16, true);
  compressed.attributes["mask_type"] = Text("MASK_TYPE_NORM_COMPRESS");
  CHECK(names_of(compressed) == "SelfAttention");
  compressed.inputs[3].shape = {256, 256};
  REFUSED(compressed, kA2, "a triangle of 128 x 128");
  Node decode = paged_attention(f16);
  decode.attributes["mask_type"] = Text("MASK_TYPE_ALIBI");
  decode.inputs.push_back({f16, {0, 4, 1, 256}});
  CHECK(names_of(decode) == "PagedAttention");
}

TEST(heads_beyond_the_kernels_limits_are_refused) {
  const auto sized = [](Node node, int64_t head, int64_t block) {
    node.inputs[0].shape[2] = node.outputs[0].shape[2] = head;
    for (size_t i : {size_t{1}, size_t{2}}) node.inputs[i].shape.back() = head;
    if (node.inputs[1].shape.size() == 4) node.inputs[1].shape[1] = node.inputs[2].shape[1] = block;
    return node;
  };
  CHECK(names_of(sized(paged_attention(f16), 256, 128)) == "PagedAttention");
  REFUSED(sized(paged_attention(f16), 640, 16), kA2, "at most 576");
  REFUSED(sized(paged_attention(f16), 320, 16), kDuo, "at most 256");
  REFUSED(sized(self_attention(f16, true), 72, 0), kDuo, "no multiple of 16");
  Node uneven = paged_attention(f16);
  uneven.attributes["kv_head_num"] = int64_t{3};
  REFUSED(uneven, kA2, "cannot share");
}

TEST(several_queries_of_a_sequence_against_its_cache_take_a_mask_in_rows_on_a_310P) {
  REFUSED(spec_attention(f16), kDuo, "takes a mask of the type MASK_TYPE_SPEC");
  const Node by_token = spec_attention_by_token(f16);
  CHECK(names_of(by_token) == "PagedAttention");
  CHECK(Lowered(by_token, kDuo).get().layouts() == (std::map<int, Layout>{{1, Layout::nz}, {2, Layout::nz}}));
  CHECK(Lowered(by_token, kDuo).get().host_inputs() == std::set<int>{6});
  Node prefill = self_attention(f16, true);
  prefill.attributes["mask_type"] = Text("MASK_TYPE_SPEC");
  REFUSED(prefill, kA2, "give MASK_TYPE_NORM");
}

TEST(what_a_310P_wants_in_blocks_must_come_from_outside) {
  Node node = self_attention(f16, true);
  GraphSpec spec = graph_of(node);
  // The mask is the result of a node before.
  spec.tensors[3].kind = TensorKind::internal;
  spec.tensors.push_back({"given", f16, TensorKind::input, spec.tensors[3].shape});
  spec.nodes.insert(spec.nodes.begin(), {"Elewise", "before", {{"elewise_type", Text("ELEWISE_NEG")}}, {6}, {3}});
  const Graph graph(spec);
  const std::vector<bool> read(graph.tensors().size(), true);
  Lowering lowering(graph, graph.nodes()[1], read, find_device(kDuo));
  CHECK_THROWS(lower(lowering, "SelfAttention"), "must be an input of the network");
}

TEST_MAIN()
