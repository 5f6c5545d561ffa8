// SPDX-License-Identifier: Apache-2.0
// Runs one kernel a number of times, for tools that count instructions (tools/count_instructions.py): counts do not
// depend on other load, and the difference between two numbers of runs leaves out everything else.
//   count_kernels                      lists the cases
//   count_kernels LEVEL CASE RUNS      runs one on one thread
#include <algorithm>
#include <cstdio>
#include <functional>
#include <map>
#include <string>

#include "cpu/engine/program.h"
#include "cpu_runtime.h"
#include "graph_builder.h"

namespace atb_core::test {
namespace {

using Ints = std::vector<int64_t>;
constexpr DataType kType = DataType::bf16;
constexpr double kScale = 0.125;

// A program of one node with the memory of its inputs and outputs.
class Case {
 public:
  int input(Ints shape, DataType dtype = kType) { return tensor(TensorKind::input, std::move(shape), dtype); }
  int output(Ints shape) { return tensor(TensorKind::output, std::move(shape), kType); }
  int weight(Ints shape) { return tensor(TensorKind::weight, std::move(shape), kType); }
  int integers(Ints values, Ints shape) {
    const int id = input(std::move(shape), DataType::i32);
    auto* data = reinterpret_cast<int32_t*>(memory_[static_cast<size_t>(id)].data());
    std::transform(values.begin(), values.end(), data, [](int64_t value) { return static_cast<int32_t>(value); });
    return id;
  }
  void node(const char* op, Attributes attributes, std::vector<int> inputs, std::vector<int> outputs) {
    builder_.node(op, std::move(attributes), std::move(inputs), std::move(outputs));
  }

  void run(cpu::Isa isa, int runs) {
    const auto runtime = std::make_shared<Runtime>(1, isa);
    const auto store = std::make_shared<WeightStore>(runtime);
    Program program(runtime, store, builder_.spec);
    std::vector<Argument> arguments;
    for (size_t id = 0; id < memory_.size(); ++id) {
      const TensorSpec& spec = builder_.spec.tensors[id];
      if (spec.kind == TensorKind::weight) {
        store->set(spec.name, memory_[id].data(), spec.dtype, shapes_[id]);
      } else {
        arguments.push_back({static_cast<int>(id), memory_[id].data(), shapes_[id]});
      }
    }
    for (int i = 0; i < runs; ++i) program.run(arguments);
  }

 private:
  int tensor(TensorKind kind, Ints shape, DataType dtype) {
    const int id = builder_.add(std::to_string(memory_.size()), kind, shape, dtype);
    size_t bytes = itemsize(dtype);
    for (int64_t size : shape) bytes *= static_cast<size_t>(size);
    // 0x3c3c is about 0.0115 in bfloat16: products stay finite.
    memory_.emplace_back(bytes, std::byte{0x3c});
    shapes_.push_back(std::move(shape));
    return id;
  }

  GraphBuilder builder_;
  std::vector<std::vector<std::byte>> memory_;
  std::vector<Ints> shapes_;
};

Case linear(int64_t rows) {
  Case made;
  const int x = made.input({rows, 896}), weight = made.weight({64, 896}), y = made.output({rows, 64});
  made.node("Linear", {{"has_bias", false}}, {x, weight}, {y});
  return made;
}

Attributes attention(bool causal) {
  Attributes attributes{{"head_num", int64_t{14}}, {"kv_head_num", int64_t{2}}, {"qk_scale", kScale}};
  if (causal) attributes.emplace("is_triu_mask", true);
  return attributes;
}

Case prefill(int64_t tokens) {
  Case made;
  const int q = made.input({tokens, 14, 64}), k = made.input({tokens, 2, 64}), v = made.input({tokens, 2, 64});
  const int lengths = made.integers({tokens}, {1}), out = made.output({tokens, 14, 64});
  made.node("SelfAttention", attention(true), {q, k, v, lengths}, {out});
  return made;
}

Case decode(int64_t context) {
  Case made;
  const int64_t blocks = context / 128;
  const int q = made.input({1, 14, 64});
  const int k = made.input({blocks, 128, 2, 64}), v = made.input({blocks, 128, 2, 64});
  Ints order;
  for (int64_t i = 0; i < blocks; ++i) order.push_back(i);
  const int tables = made.integers(order, {1, blocks}), lengths = made.integers({context}, {1});
  made.node("PagedAttention", attention(false), {q, k, v, tables, lengths}, {made.output({1, 14, 64})});
  return made;
}

Case norm() {
  Case made;
  const int x = made.input({16, 896}), weight = made.weight({896}), y = made.output({16, 896});
  made.node("RmsNorm", {}, {x, weight}, {y});
  return made;
}

Case swiglu() {
  Case made;
  const int x = made.input({16, 2 * 1024}), y = made.output({16, 1024});
  made.node("Activation", {{"activation_type", std::string("ACTIVATION_SWIGLU_FORWARD")}}, {x}, {y});
  return made;
}

Case rope() {
  Case made;
  const int q = made.input({16, 896}), k = made.input({16, 128}), cos = made.input({16, 64}),
            sin = made.input({16, 64});
  const int lengths = made.integers({16}, {1}), rotated = made.output({16, 896}), keys = made.output({16, 128});
  made.node("Rope", {}, {q, k, cos, sin, lengths}, {rotated, keys});
  return made;
}

const std::map<std::string, std::function<Case()>> kCases = {
    {"linear of 1 row", [] { return linear(1); }},
    {"linear of 16 rows", [] { return linear(16); }},
    {"linear of 64 rows", [] { return linear(64); }},
    {"attention of a prompt of 64", [] { return prefill(64); }},
    {"attention of 1 token to 256", [] { return decode(256); }},
    {"norm of 16 rows", norm},
    {"swiglu of 16 rows", swiglu},
    {"rope of 16 rows", rope},
};

int main_of(int argc, char** argv) {
  if (argc == 1) {
    for (const auto& [name, make] : kCases) std::printf("%s\n", name.c_str());
    return 0;
  }
  const auto found = argc == 4 ? kCases.find(argv[2]) : kCases.end();
  const auto isa = argc == 4 ? cpu::isa_from_name(argv[1]) : std::nullopt;
  if (found == kCases.end() || !isa || !cpu::supported(*isa)) {
    std::fprintf(stderr, "usage: count_kernels LEVEL CASE RUNS, with a level that this machine has\n");
    return 2;
  }
  found->second().run(*isa, std::stoi(argv[3]));
  return 0;
}

}  // namespace
}  // namespace atb_core::test

int main(int argc, char** argv) { return atb_core::test::main_of(argc, argv); }
