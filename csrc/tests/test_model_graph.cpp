// SPDX-License-Identifier: Apache-2.0
// Graphs of models that C++ builds: recorded nodes, immediate refusals, and the engine's input.
#include "atb_core/model.h"
#include "check.h"
#include "graph/graph.h"
#include "models/lower.h"

namespace atb_core::test {
namespace {

const Size kRows("rows"), kWidth("width");

// An output that this header refuses; a library may have been compiled with another version.
ModelGraph with_role(ModelGraph graph, size_t tensor, Role role, const std::string& name) {
  auto& one = const_cast<ModelGraph::Tensor&>(graph.tensors()[tensor]);
  one.role = role;
  one.name = name;
  return graph;
}

ModelGraph doubled() {
  ModelGraph graph;
  const Value x = graph.input("x", DataType::f32, {kRows, kWidth});
  graph.output(graph.add(x, x), "y");
  return graph;
}

TensorView view(DataType dtype, std::initializer_list<int64_t> shape) {
  TensorView result;
  result.dtype = dtype;
  result.rank = static_cast<int>(shape.size());
  std::copy(shape.begin(), shape.end(), result.shape);
  return result;
}

}  // namespace

TEST(a_value_that_was_never_made_or_is_of_another_graph_is_refused_with_op_and_label) {
  ModelGraph graph;
  const Value x = graph.input("x", DataType::f32, {kRows, kWidth});
  graph.at("layers.0");
  CHECK_THROWS(graph.add(x, Value{}), "Elewise at layers.0: it is given a Value that was never made");
  CHECK_THROWS(graph.add(x, Value{7}), "Elewise at layers.0: there is no tensor 7");
  CHECK_THROWS(graph.op("Foo", {}, {Value{-3}}, {{}}, DataType::f32), "Foo at layers.0: it is given a Value");
  CHECK_THROWS(graph.shape(Value{}), "shape() at layers.0");
  CHECK_THROWS(graph.dtype(Value{1}), "dtype() at layers.0");
  const Value none;
  CHECK_THROWS(graph.rms_norm(none, x, 1e-6), "RmsNorm at layers.0");
  CHECK_THROWS(graph.add(none, x), "Elewise at layers.0");
  CHECK_THROWS(graph.linear(x, none), "Linear at layers.0");
  CHECK_THROWS(graph.linear(x, x, Value{8}), "Linear at layers.0");
  CHECK_THROWS(graph.gather(x, none), "Gather at layers.0");
  CHECK_THROWS(graph.reshape(none, {}), "Reshape at layers.0");
  CHECK_THROWS(graph.rope(x, none, x, x, x), "Rope at layers.0");
  CHECK_THROWS(graph.swiglu(none, 1), "Activation at layers.0");
  CHECK_THROWS(graph.reshape_and_cache(none, x, x, x, x), "ReshapeAndCache at layers.0");
  CHECK_THROWS(graph.self_attention(none, x, x, x, x, 1, 1, 1.0), "SelfAttention at layers.0");
  CHECK_THROWS(graph.paged_attention(x, x, x, none, x, 1, 1, 1.0), "PagedAttention at layers.0");
  CHECK_THROWS(graph.cast(none, DataType::f16), "Cast at layers.0");
  CHECK_THROWS(graph.split(Value{}, {1, 1}), "Split at layers.0");
  CHECK(graph.nodes().empty());
}

TEST(a_tensor_of_too_few_dimensions_is_refused_where_its_shape_is_needed) {
  ModelGraph graph;
  const Value scalar = graph.input("scalar", DataType::f32, {}), row = graph.input("row", DataType::f32, {kWidth});
  const Value matrix = graph.weight("matrix", DataType::f32, {kRows, kWidth});
  CHECK_THROWS(graph.linear(scalar, matrix), "Linear: x has rank 0 where 1 or more is needed");
  CHECK_THROWS(graph.linear(row, row), "Linear: the weight has rank 1 where 2 is needed");
  CHECK_THROWS(graph.gather(row, row), "Gather: the table has rank 1 where 2 is needed");
  CHECK_THROWS(graph.gather(matrix, scalar), "Gather: the tensor of indices has rank 0 where 1 is needed");
  CHECK_THROWS(graph.split(scalar, {1}), "Split: x has rank 0");
  CHECK_THROWS(graph.swiglu(scalar, 4), "Activation: x has rank 0");
  CHECK(graph.nodes().empty());
  CHECK(graph.shape(graph.linear(row, matrix))[0].dimension == "rows");
}

TEST(only_the_result_of_an_op_can_be_an_output_and_only_once) {
  ModelGraph graph;
  const Value x = graph.input("x", DataType::f32, {kRows}), w = graph.weight("w", DataType::f32, {kRows});
  const Value sum = graph.add(x, w);
  CHECK_THROWS(graph.output(x, "y"), "the output 'y': 'x' is no result of an op");
  CHECK_THROWS(graph.output(w, "y"), "the output 'y': 'w' is no result of an op");
  CHECK_THROWS(graph.output(Value{}, "y"), "the output 'y': it is given a Value that was never made");
  CHECK_THROWS(graph.output(Value{9}, "y"), "the output 'y': there is no tensor 9");
  graph.output(sum, "y");
  CHECK_THROWS(graph.output(sum, "z"), "the output 'z': it is the output 'y' already");
  CHECK(graph.tensors()[2].name == "y");
}

TEST(a_model_that_asks_for_its_engine_while_it_is_being_built_is_told) {
  class Eager : public Model {
   public:
    Eager() : Model("Eager") {}

   protected:
    void BuildGraph(ModelGraph&) override { engine().set_weights({}); }
  };
  Eager model;
  CHECK_THROWS(model.Init(nullptr), "the model Eager has no engine yet");
  CHECK_THROWS(model.Execute({}, {}, "{}"), "the model Eager has no engine yet");
}

TEST(an_output_that_no_op_makes_is_refused_by_name) {
  check_graph(doubled());
  const ModelGraph input_as_output = with_role(doubled(), 0, Role::output, "out");
  CHECK_THROWS(check_graph(input_as_output), "no op makes the output 'out'");
  CHECK_THROWS(lower(input_as_output, {}, {}), "no op makes the output 'out'");
  ModelGraph graph = doubled();
  graph.weight("w", DataType::f32, {kRows});
  CHECK_THROWS(check_graph(with_role(graph, 2, Role::output, "w")), "no op makes the output 'w'");
}

TEST(inputs_caches_and_outputs_have_names_and_no_two_the_same) {
  ModelGraph graph = doubled();
  graph.cache("x", DataType::f32, {kRows});
  CHECK_THROWS(check_graph(graph), "two inputs, caches or outputs are called 'x'");
  ModelGraph nameless;
  nameless.input("", DataType::f32, {});
  CHECK_THROWS(check_graph(nameless), "an input, cache or output has no name (tensor 0)");
}

TEST(a_node_that_reads_or_makes_what_is_not_there_is_refused) {
  ModelGraph graph = doubled();
  auto& node = const_cast<ModelGraph::Node&>(graph.nodes()[0]);
  node.inputs[1] = 5;
  CHECK_THROWS(check_graph(graph), "Elewise at node 0 reads tensor 5, which is not there");
  node.inputs[1] = -1;
  CHECK_THROWS(lower(graph, {}, {}), "Elewise at node 0 reads tensor -1, which is not there");
  node.inputs[1] = 0;
  node.outputs[0] = 2;
  CHECK_THROWS(check_graph(graph), "Elewise at node 0 makes tensor 2, which is not there");
}

TEST(a_node_without_a_label_has_its_number_in_messages) {
  ModelGraph graph = doubled();
  graph.at("layers.1");
  graph.add(Value{0}, Value{1});
  const LoweredGraph lowered = lower(graph, {}, {});
  CHECK(describe(lowered.spec.nodes[0]) == "Elewise at node 0");
  CHECK(describe(lowered.spec.nodes[1]) == "Elewise at layers.1");
}

TEST(known_sizes_become_numbers_and_what_no_node_reads_is_left_out) {
  ModelGraph graph;
  graph.input("unread", DataType::i32, {Size("nowhere")});
  const Value x = graph.input("x", DataType::f32, {kRows, Size("width", 2)});
  graph.cut();
  graph.output(graph.add(x, x), "y");
  const LoweredGraph lowered = lower(graph, {{"width", 8}}, {});
  CHECK(lowered.spec.dims == std::vector<std::string>{"rows"});
  CHECK((lowered.ids == std::vector<int>{-1, 0, 1}));
  CHECK(lowered.segments == std::vector<int>{1});
  const std::vector<int64_t> sizes = {5};
  CHECK(lowered.spec.tensors[0].shape[0].evaluate(sizes) == 5);
  CHECK(lowered.spec.tensors[0].shape[1].evaluate(sizes) == 16);
  CHECK(lowered.spec.tensors[1].kind == TensorKind::output);
}

TEST(weights_of_one_name_are_one_tensor) {
  ModelGraph graph;
  const Value a = graph.weight("a", DataType::f32, {kRows}), b = graph.weight("b", DataType::f32, {kRows});
  graph.output(graph.add(a, b), "y");
  const LoweredGraph tied = lower(graph, {{"rows", 3}}, {"one", "one"});
  CHECK((tied.ids == std::vector<int>{0, 0, 1}));
  CHECK(lower(graph, {{"rows", 3}}, {"one", "other"}).ids[1] == 1);
}

TEST(weights_tell_the_sizes_and_the_one_that_does_not_fit_is_named) {
  ModelGraph graph;
  graph.weight("table", DataType::f16, {kRows, kWidth});
  graph.weight("gate_up", DataType::f16, {Size("inner", 2), kWidth});
  const TensorView table = view(DataType::f16, {7, 4}), wide = view(DataType::f16, {10, 4});
  const std::map<std::string, int64_t> sizes = weight_sizes(graph, {table, wide});
  CHECK((sizes == std::map<std::string, int64_t>{{"inner", 5}, {"rows", 7}, {"width", 4}}));
  CHECK_THROWS(weight_sizes(graph, {table}), "1 weights were given where 2 are needed");
  CHECK_THROWS(weight_sizes(graph, {table, view(DataType::f32, {10, 4})}), "'weight 1, gate_up' is float32 where");
  CHECK_THROWS(weight_sizes(graph, {table, view(DataType::f16, {10})}), "'weight 1, gate_up' has 1 dimensions where 2");
  CHECK_THROWS(weight_sizes(graph, {table, view(DataType::f16, {9, 4})}), "weight 1, gate_up");
  CHECK_THROWS(weight_sizes(graph, {table, view(DataType::f16, {10, 5})}), "weight 1, gate_up");
}

}  // namespace atb_core::test

TEST_MAIN()
