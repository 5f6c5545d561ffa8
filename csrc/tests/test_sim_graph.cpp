// SPDX-License-Identifier: Apache-2.0
// Graphs of the simulator: rules for tensors, ownership of operations, and places of internal tensors.
#include <algorithm>
#include <atomic>
#include <stdexcept>
#include <thread>

#include "sim_card.h"

using namespace atb_core::test;

namespace {

// The graph is refused, and the caller still owns the operations of its nodes.
void refused(const GraphParam& graph, Status status, const std::string& why) {
  Operation* operation = nullptr;
  CHECK(CreateOperation(graph, &operation) == status);
  CHECK(operation == nullptr);
  if (!says(why)) report(why.c_str(), 0, "not said; instead: " + sim::last_message());
  release(graph);
}

Operation* graph_of(const GraphParam& param) {
  Operation* graph = nullptr;
  CHECK(CreateOperation(param, &graph) == NO_ERROR);
  return graph;
}

// Runs Setup and Execute with own memory and returns the status of the first call that fails.
Status run(Card& card, Operation* graph, const VariantPack& pack) {
  uint64_t size = 0;
  if (const Status status = graph->Setup(pack, size, card.context); status != NO_ERROR) return status;
  auto* workspace = static_cast<uint8_t*>(size == 0 ? nullptr : card.allocate(size));
  if (const Status status = graph->Execute(pack, workspace, size, card.context); status != NO_ERROR) return status;
  return card.wait() == ACL_SUCCESS ? NO_ERROR : ERROR_RT_FAIL;
}

// The chain, in which `view` changes the first input of the first node. The second input needs no entry.
GraphParam reshaped(ReshapeFunc view) {
  GraphParam param = chain();
  param.nodes[0].inTensorReshapeFuncs.resize(1);
  param.nodes[0].inTensorReshapeFuncs.at(0) = std::move(view);
  return param;
}

}  // namespace

TEST(a_graph_runs_its_nodes_in_order) {
  Card card;
  Operation* graph = graph_of(chain());
  CHECK(graph->GetName() == "chain" && graph->GetInputNum() == 2 && graph->GetOutputNum() == 1);
  const VariantPack pack = card.pack(1.0f, 2.0f);
  const uint64_t launches = sim::counters().launches;
  CHECK(run(card, graph, pack) == NO_ERROR && first(pack.outTensors.at(0)) == 7.0f);
  CHECK(sim::counters().launches == launches + 3);
  const uint64_t live = sim::counters().live_operations;
  CHECK(DestroyOperation(graph) == NO_ERROR && sim::counters().live_operations == live - 4);
}

TEST(the_workspace_has_to_be_there_and_large_enough) {
  Card card;
  Operation* graph = graph_of(chain());
  const VariantPack pack = card.pack(1.0f, 2.0f);
  uint64_t size = 1024;
  auto* workspace = static_cast<uint8_t*>(card.allocate(size));
  const auto execute = [&](uint8_t* address, uint64_t bytes) {
    CHECK(graph->Setup(pack, size, card.context) == NO_ERROR && size == 1024);
    return graph->Execute(pack, address, bytes, card.context);
  };
  CHECK(execute(workspace, size - 1) == ERROR_INVALID_PARAM && says("of 1023 bytes where 1024 are needed"));
  CHECK(execute(nullptr, size) == ERROR_INVALID_PARAM && says("bad workspace"));
  CHECK(execute(workspace + 512, size) == ERROR_INVALID_PARAM && says("only 512 bytes"));
  std::vector<uint8_t> host(size);
  CHECK(execute(host.data(), size) == ERROR_INVALID_PARAM);
  CHECK(execute(workspace, size) == NO_ERROR && card.wait() == ACL_SUCCESS);
  card.free_last();
  CHECK(execute(workspace, size) == ERROR_INVALID_PARAM);
  DestroyOperation(graph);
}

TEST(what_the_workspace_held_is_gone_when_a_graph_runs) {
  Card card;
  Operation* graph = graph_of(chain());
  const VariantPack pack = card.pack(1.0f, 2.0f);
  uint64_t size = 0;
  CHECK(graph->Setup(pack, size, card.context) == NO_ERROR);
  auto* workspace = static_cast<uint8_t*>(card.allocate(size));
  CHECK(aclrtMemset(workspace, size, 0, size) == ACL_SUCCESS);
  sim::inject_async(0, ACL_ERROR_RT_AICORE_EXCEPTION);
  CHECK(graph->Execute(pack, workspace, size, card.context) == NO_ERROR);
  CHECK(card.wait() == ACL_ERROR_RT_AICORE_EXCEPTION);
  CHECK(std::isnan(*static_cast<const float*>(sim::window(workspace))));
  DestroyOperation(graph);
}

TEST(kernels_of_a_graph_share_their_workspace_behind_the_internals) {
  const auto sort = [](int32_t count) {
    infer::SortParam param;
    param.num.push_back(count);
    Operation* operation = nullptr;
    CHECK(CreateOperation(param, &operation) == NO_ERROR);
    return operation;
  };
  Card card;
  // The largest 8 of 16, of them the largest 4; the places of both are kept to the graph.
  GraphParam param;
  param.name = "sorts";
  param.inTensorNum = param.outTensorNum = 1;
  param.internalTensorNum = 3;
  param.nodes = {node_of(sort(8), {0}, {2, 3}), node_of(sort(4), {2}, {1, 4})};
  Operation* graph = graph_of(param);
  VariantPack pack = card.pack(1.0f, 2.0f);
  VariantPack given;
  given.inTensors.push_back(pack.inTensors.at(0));
  given.outTensors.push_back(pack.outTensors.at(0));
  given.outTensors.at(0).desc.shape.dims[0] = 4;
  given.outTensors.at(0).dataSize = 16;
  uint64_t size = 0;
  CHECK(graph->Setup(given, size, card.context) == NO_ERROR && size == 2 * 512 + 4608);
  CHECK(run(card, graph, given) == NO_ERROR && first(given.outTensors.at(0)) == 1.0f);
  DestroyOperation(graph);
}

TEST(names_and_sizes_have_limits) {
  GraphParam graph = chain();
  graph.name = "a-b";
  refused(graph, ERROR_INVALID_GRAPH, "letters, digits and underscores");
  graph = chain();
  graph.name = std::string(129, 'a');
  refused(graph, ERROR_INVALID_GRAPH, "at most 128");
  graph = chain();
  graph.inTensorNum = 257;
  refused(graph, ERROR_INVALID_GRAPH, "more than 256");
  graph = chain();
  release(graph);
  graph.nodes.clear();
  refused(graph, ERROR_INVALID_GRAPH, "0 nodes");
  graph.nodes.resize(1025);
  Operation* none = nullptr;
  CHECK(CreateOperation(graph, &none) == ERROR_INVALID_GRAPH && says("1025 nodes"));
  CHECK(CreateOperation(GraphParam(), nullptr) == ERROR_INVALID_PARAM);
}

TEST(every_tensor_gets_its_value_before_it_is_read) {
  GraphParam graph = chain();
  graph.nodes[0].inTensorIds = {4, 1};
  refused(graph, ERROR_INVALID_GRAPH, "node 0 reads tensor 4 before it has a value");
  graph = chain();
  std::swap(graph.nodes[0], graph.nodes[1]);
  refused(graph, ERROR_INVALID_GRAPH, "node 0 reads tensor 3 before it has a value");
  graph = chain();
  graph.internalTensorNum = 3;
  refused(graph, ERROR_INVALID_GRAPH, "no node makes tensor 5");
  graph = chain();
  graph.nodes[1].inTensorIds = {3, 9};
  refused(graph, ERROR_INVALID_GRAPH, "a tensor id is not below 5");
}

TEST(a_second_value_of_a_tensor_is_a_warning) {
  // t3 = a + b; t3 = t3 + b with a fresh node that reads only a and b; out = t3 + b.
  GraphParam param = chain();
  param.internalTensorNum = 1;
  param.nodes[1].inTensorIds = {0, 1};
  param.nodes[1].outTensorIds = {3};
  param.nodes[2].inTensorIds = {3, 1};
  sim::set_logging(true);
  Operation* graph = graph_of(param);
  const std::vector<std::string> log = sim::call_log();
  sim::set_logging(false);
  CHECK(log.size() == 2);
  CHECK(log.back() == "warning: graph chain, node 1 writes tensor 3, which has a value and is none of its inputs");
  Card card;
  const VariantPack pack = card.pack(1.0f, 2.0f);
  CHECK(run(card, graph, pack) == NO_ERROR && first(pack.outTensors.at(0)) == 5.0f);
  DestroyOperation(graph);
}

TEST(an_operation_may_write_a_tensor_that_it_reads) {
  Card card;
  GraphParam param = chain();
  param.nodes = {node_of(param.nodes[0].operation, {0, 1}, {2}), node_of(param.nodes[1].operation, {2, 1}, {2}),
                 node_of(param.nodes[2].operation, {0, 1}, {0})};
  param.internalTensorNum = 0;
  Operation* graph = graph_of(param);
  const VariantPack pack = card.pack(1.0f, 2.0f);
  CHECK(run(card, graph, pack) == NO_ERROR);
  CHECK(first(pack.outTensors.at(0)) == 5.0f && first(pack.inTensors.at(0)) == 3.0f);
  DestroyOperation(graph);
}

TEST(nodes_have_the_tensors_that_their_operations_want) {
  GraphParam graph = chain();
  graph.nodes[0].inTensorIds = {0};
  refused(graph, ERROR_INVALID_GRAPH, "node 0: 1 inputs and 1 outputs, the operation has 2 and 1");
  graph = chain();
  graph.nodes[0].outTensorIds = {3, 4};
  refused(graph, ERROR_INVALID_GRAPH, "2 inputs and 2 outputs");
  graph = chain();
  graph.nodes[0].inTensorReshapeFuncs.resize(3);
  refused(graph, ERROR_INVALID_GRAPH, "3 reshape functions for 2 inputs");
  graph = chain();
  graph.nodes[0].inTensorChunks.resize(2);
  refused(graph, ERROR_INVALID_GRAPH_NODE_CHUNK, "no chunks");
  graph = chain();
  graph.nodes[0].inTensorIds.reserve(65);
  graph.nodes[0].inTensorIds.resize(65);
  refused(graph, ERROR_INVALID_GRAPH, "more than 64 operands");
}

TEST(a_graph_owns_the_operations_of_its_nodes_as_soon_as_it_exists) {
  GraphParam param = chain(), other = chain();
  Operation* const taken = param.nodes[0].operation;
  Operation* graph = graph_of(param);
  CHECK(DestroyOperation(taken) == ERROR_INVALID_OPERATION_ADDR && says("a graph owns this operation"));
  Operation* const own = std::exchange(other.nodes[1].operation, taken);
  Operation* none = nullptr;
  CHECK(CreateOperation(other, &none) == ERROR_INVALID_GRAPH && says("part of another graph"));
  CHECK(DestroyOperation(graph) == NO_ERROR);
  CHECK(DestroyOperation(taken) == ERROR_INVALID_OPERATION_ADDR && says("no such operation"));
  other.nodes[1].operation = own;
  release(other);
}

TEST(nodes_have_operations_of_their_own_that_exist) {
  GraphParam graph = chain();
  Operation* const own = std::exchange(graph.nodes[1].operation, graph.nodes[0].operation);
  Operation* none = nullptr;
  CHECK(CreateOperation(graph, &none) == ERROR_INVALID_GRAPH && says("another node has the same operation"));
  graph.nodes[1].operation = nullptr;
  CHECK(CreateOperation(graph, &none) == ERROR_INVALID_GRAPH && says("it has no operation"));
  graph.nodes[1].operation = own;
  release(graph);
}

TEST(a_graph_that_cannot_be_made_leaves_its_operations_to_the_caller) {
  const uint64_t live = sim::counters().live_operations;
  const GraphParam graph = chain();
  sim::inject("CreateOperation", 0, ERROR_OUT_OF_HOST_MEMORY);
  refused(graph, ERROR_OUT_OF_HOST_MEMORY, "was told to fail");
  CHECK(sim::counters().live_operations == live);
}

TEST(graphs_are_operations_of_graphs) {
  Card card;
  GraphParam outer = chain();
  CHECK(DestroyOperation(outer.nodes[1].operation) == NO_ERROR);
  outer.nodes[1].operation = graph_of(chain());
  const uint64_t live = sim::counters().live_operations;
  Operation* graph = graph_of(outer);
  const VariantPack pack = card.pack(1.0f, 2.0f);
  CHECK(run(card, graph, pack) == NO_ERROR && first(pack.outTensors.at(0)) == 11.0f);
  CHECK(DestroyOperation(graph) == NO_ERROR && sim::counters().live_operations == live - 6);
}

TEST(internals_share_memory_when_their_lives_do_not_meet) {
  Card card;
  // Nine additions: each internal is read by the next node only.
  GraphParam param = chain();
  release(param);
  param.nodes.clear();
  param.internalTensorNum = 8;
  for (uint32_t i = 0; i < 9; ++i) {
    param.nodes.push_back(node_of(made(), {i == 0 ? 0 : 2 + i, 1}, {i == 8 ? 2 : 3 + i}));
  }
  Operation* graph = graph_of(param);
  const VariantPack pack = card.pack(1.0f, 2.0f);
  uint64_t size = 0;
  CHECK(graph->Setup(pack, size, card.context) == NO_ERROR && size == 2 * 512);
  CHECK(run(card, graph, pack) == NO_ERROR && first(pack.outTensors.at(0)) == 19.0f);
  DestroyOperation(graph);
}

TEST(internals_that_are_needed_later_keep_their_memory) {
  Card card;
  // t3 = a + b, t4 = t3 + b, out = t4 + t3: t3 lives longest.
  GraphParam param = chain();
  param.nodes[2].inTensorIds = {4, 3};
  Operation* graph = graph_of(param);
  const VariantPack pack = card.pack(1.0f, 2.0f);
  CHECK(run(card, graph, pack) == NO_ERROR && first(pack.outTensors.at(0)) == 8.0f);
  DestroyOperation(graph);
}

TEST(a_reshape_function_gives_all_dimensions_and_is_warned_of_another_number_of_elements) {
  Card card;
  const auto status = [&](ReshapeFunc view) {
    Operation* graph = graph_of(reshaped(std::move(view)));
    const Status result = run(card, graph, card.pack(1.0f, 2.0f));
    DestroyOperation(graph);
    return result;
  };
  CHECK(status(nullptr) == NO_ERROR);
  CHECK(status([](const Dims& old, Dims& dims) { dims = old; }) == NO_ERROR);
  // The new dimensions begin as none.
  CHECK(status([](const Dims&, Dims& dims) { dims.dims[0] = kCount; }) == ERROR_INVALID_TENSOR_DIM_NUM);
  sim::set_logging(true);
  const auto first_element = [](const Dims&, Dims& dims) { dims = {{1}, 1}; };
  CHECK(status(first_element) == NO_ERROR);  // which is added to each of the others
  const std::vector<std::string> log = sim::call_log();
  sim::set_logging(false);
  const std::string warning =
      "warning: graph chain, node 0, input 0: type 0 [16] was reshaped to type 0 [1], which has "
      "another number of elements";
  CHECK(std::find(log.begin(), log.end(), warning) != log.end());
  CHECK(status([](const Dims&, Dims& dims) { dims.dimNum = 9; }) == ERROR_INVALID_TENSOR_DIM_NUM);
  // [4, 4] beside [16] cannot be added.
  CHECK(status([](const Dims&, Dims& dims) {
          dims.dims[0] = dims.dims[1] = 4;
          dims.dimNum = 2;
        }) != NO_ERROR);
}

TEST(an_exception_in_setup_is_a_status) {
  Card card;
  Operation* graph = graph_of(reshaped([](const Dims&, Dims&) { throw std::runtime_error("no such size"); }));
  uint64_t size = 0;
  CHECK(graph->Setup(card.pack(1.0f, 2.0f), size, card.context) == ERROR_OUT_OF_HOST_MEMORY && says("no such size"));
  DestroyOperation(graph);
}

TEST(the_shapes_of_outputs_come_from_the_nodes_or_from_the_graphs_own_function) {
  Card card;
  const VariantPack pack = card.pack(1.0f, 2.0f);
  const auto status = [&](InferShapeFunc function) {
    GraphParam param = chain();
    param.inferShapeFunc = std::move(function);
    Operation* graph = graph_of(param);
    const Status result = run(card, graph, pack);
    DestroyOperation(graph);
    return result;
  };
  CHECK(status(nullptr) == NO_ERROR);
  const auto same = [](const SVector<TensorDesc>& in, SVector<TensorDesc>& out) {
    out.at(0) = in.at(0);
    return int32_t{NO_ERROR};
  };
  CHECK(status(same) == NO_ERROR);
  CHECK(status([](const SVector<TensorDesc>&, SVector<TensorDesc>&) { return 7; }) == ERROR_GRAPH_INFERSHAPE_FUNC_FAIL);
  const auto half = [](const SVector<TensorDesc>& in, SVector<TensorDesc>& out) {
    out.at(0) = in.at(0);
    out.at(0).shape.dims[0] /= 2;
    return int32_t{NO_ERROR};
  };
  CHECK(status(half) == ERROR_INVALID_TENSOR_DIM && says("output 0"));
  // With a wrong shape function, the nodes would write past the end of the output.
  GraphParam param = chain();
  param.inferShapeFunc = half;
  Operation* graph = graph_of(param);
  VariantPack small = card.pack(1.0f, 2.0f);
  small.outTensors.at(0).desc.shape.dims[0] /= 2;
  small.outTensors.at(0).dataSize /= 2;
  CHECK(run(card, graph, small) == ERROR_INVALID_TENSOR_DIM && says("but its node makes type 0 [16]"));
  DestroyOperation(graph);
}

TEST(the_memory_of_a_node_in_place_is_the_same_tensor_of_the_graph) {
  infer::LinearParam param;
  param.hasBias = false;
  param.enAccum = true;
  Operation* linear = nullptr;
  CHECK(CreateOperation(param, &linear) == NO_ERROR);
  Card card;
  GraphParam graph;
  graph.name = "accumulate";
  graph.inTensorNum = 3;
  graph.outTensorNum = 1;
  graph.nodes = {node_of(linear, {0, 1, 2}, {3})};
  Operation* operation = graph_of(graph);
  const auto matrix = [&](aclDataType dtype) {
    Tensor tensor = card.tensor(0.0f);
    tensor.desc = {dtype, ACL_FORMAT_ND, {{4, 4}, 2}};
    tensor.dataSize = Utils::GetTensorSize(tensor);
    return tensor;
  };
  VariantPack pack;
  pack.inTensors = {matrix(ACL_FLOAT16), matrix(ACL_FLOAT16), matrix(ACL_FLOAT)};
  pack.outTensors = {matrix(ACL_FLOAT)};
  uint64_t size = 0;
  CHECK(operation->Setup(pack, size, card.context) == ERROR_INVALID_GRAPH);
  CHECK(says("output 0 has to be the same tensor as input 2"));
  DestroyOperation(operation);
}

TEST(two_threads_in_one_operation_are_refused) {
  Card card;
  std::atomic<bool> inside = false, go_on = false;
  Operation* graph = graph_of(reshaped([&](const Dims& old, Dims& dims) {
    dims = old;
    inside = true;
    while (!go_on) std::this_thread::yield();
  }));
  const VariantPack pack = card.pack(1.0f, 2.0f);
  uint64_t size = 0, other = 0;
  std::thread first_thread([&] { CHECK(graph->Setup(pack, size, card.context) == NO_ERROR); });
  while (!inside) std::this_thread::yield();
  CHECK(graph->Setup(pack, other, card.context) == ERROR_INTERNAL_ERROR && says("two threads"));
  CHECK(graph->Execute(pack, nullptr, 0, card.context) == ERROR_INTERNAL_ERROR && says("two threads"));
  go_on = true;
  first_thread.join();
  CHECK(run(card, graph, pack) == NO_ERROR);
  DestroyOperation(graph);
}

TEST(the_log_names_graphs_and_operations) {
  Card card;
  Operation* graph = graph_of(chain());
  const VariantPack pack = card.pack(1.0f, 2.0f);
  sim::set_logging(true);
  CHECK(run(card, graph, pack) == NO_ERROR);
  DestroyOperation(graph);
  CHECK((sim::call_log() == std::vector<std::string>{"Operation::Setup chain", "aclrtMalloc 1024",
                                                     "Operation::Execute chain", "aclrtSynchronizeStream",
                                                     "DestroyOperation"}));
  sim::set_logging(false);
}

TEST_MAIN()
