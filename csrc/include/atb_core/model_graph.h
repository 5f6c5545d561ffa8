// SPDX-License-Identifier: Apache-2.0
// The graph of a model, written in C++: tensors with symbolic shapes and ops in the order of execution. Header only, so
// that a shared library builds graphs without linking the core. A std::runtime_error, which names op and label, refuses
// values that would be read past their end; the engine checks the rest when it takes the graph. Ops and attributes are
// those of docs/ops.md.
#pragma once

#include <cmath>
#include <initializer_list>
#include <map>
#include <stdexcept>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "atb_core/types.h"

namespace atb_core {

// A size: a number, or a named dimension whose size real tensors determine (plain `name`), times a factor.
struct Size {
  Size(int64_t number) : factor(number) {}  // NOLINT: `{tokens, 64}` is how shapes are written
  Size(int number) : factor(number) {}      // NOLINT
  explicit Size(std::string name, int64_t times = 1) : dimension(std::move(name)), factor(times) {}

  std::string dimension;  // empty for a number
  int64_t factor = 1;
};

using Shape = std::vector<Size>;

// A tensor of a graph, by its number.
struct Value {
  int id = -1;
};

// The role of a tensor. Weights and caches are set once, inputs and outputs for every step.
enum class Role { input, weight, cache, output, internal };

class ModelGraph {
 public:
  using Attribute = std::variant<bool, int64_t, double, std::string, std::vector<int64_t>>;
  using Attributes = std::map<std::string, Attribute, std::less<>>;

  struct Tensor {
    std::string name;
    DataType dtype;
    Role role;
    Shape shape;
  };
  struct Node {
    std::string op;
    std::string label;
    Attributes attributes;
    std::vector<int> inputs, outputs;
    int segment = 0;  // the number of cuts before it
  };

  // Sets the label (a module's path) of everything recorded from now on, for messages.
  void at(std::string label) { label_ = std::move(label); }

  // Ends a segment: a device runs the ops between two cuts as one operation, and segments of equal ops and shapes share
  // it. So a cut belongs before and after each layer. Results do not depend on cuts.
  void cut() { ++segment_; }

  Value input(std::string name, DataType dtype, Shape shape) {
    return make(std::move(name), dtype, Role::input, std::move(shape));
  }
  // Adds a weight. Weights are set as one list in the order of these calls.
  Value weight(std::string name, DataType dtype, Shape shape) {
    return make(std::move(name), dtype, Role::weight, std::move(shape));
  }
  // Adds a cache, which is written in place. Caches are set as one list, those of keys before those of values.
  Value cache(std::string name, DataType dtype, Shape shape) {
    return make(std::move(name), dtype, Role::cache, std::move(shape));
  }
  // Makes the result of an op an output of the graph, with this name. Each result can be one output.
  void output(Value value, std::string name) {
    const std::string what = "the output '" + name + "'";
    Tensor& tensor = tensors_[number(value, what)];
    if (tensor.role == Role::output) wrong(what, "it is the output '" + tensor.name + "' already");
    if (tensor.role != Role::internal) wrong(what, "'" + tensor.name + "' is no result of an op");
    tensor.role = Role::output;
    tensor.name = std::move(name);
  }

  // Adds any op. `outputs` are the shapes of its results, which are of type `dtype`.
  std::vector<Value> op(std::string op, Attributes attributes, std::initializer_list<Value> inputs,
                        std::vector<Shape> outputs, DataType dtype) {
    Node node{std::move(op), label_, std::move(attributes), {}, {}, segment_};
    for (Value input : inputs) node.inputs.push_back(static_cast<int>(number(input, node.op)));
    std::vector<Value> results;
    for (Shape& shape : outputs) {
      results.push_back(make("", dtype, Role::internal, std::move(shape)));
      node.outputs.push_back(results.back().id);
    }
    nodes_.push_back(std::move(node));
    return results;
  }

  // table [rows, width], indices [n] -> [n, width]
  Value gather(Value table, Value indices) {
    require_rank("Gather", "the table", table, 2, 2);
    require_rank("Gather", "the tensor of indices", indices, 1, 1);
    return op("Gather", {{"axis", int64_t{0}}}, {table, indices}, {{shape(indices)[0], shape(table)[1]}},
              dtype(table))[0];
  }
  // x [..., k], weight [n, k] -> [..., n]; a bias [n] where `bias` is a tensor
  Value linear(Value x, Value weight, Value bias = {}) {
    require_rank("Linear", "x", x, 1);
    require_rank("Linear", "the weight", weight, 2, 2);
    Shape result = shape(x);
    result.back() = shape(weight)[0];
    const bool has_bias = bias.id >= 0;
    const Attributes attributes = {{"transpose_a", false}, {"transpose_b", true}, {"has_bias", has_bias}};
    if (has_bias) return op("Linear", attributes, {x, weight, bias}, {result}, dtype(x))[0];
    return op("Linear", attributes, {x, weight}, {result}, dtype(x))[0];
  }
  Value rms_norm(Value x, Value weight, double epsilon) {
    require("RmsNorm", {x, weight});
    return op("RmsNorm", {{"epsilon", epsilon}}, {x, weight}, {shape(x)}, dtype(x))[0];
  }
  Value add(Value a, Value b) {
    require("Elewise", {a, b});
    return op("Elewise", {{"elewise_type", std::string("ELEWISE_ADD")}}, {a, b}, {shape(a)}, dtype(a))[0];
  }
  // Splits x [..., sum of sizes] along its last dimension.
  std::vector<Value> split(Value x, const std::vector<int64_t>& sizes) {
    require_rank("Split", "x", x, 1);
    std::vector<Shape> shapes;
    for (int64_t size : sizes) {
      shapes.push_back(shape(x));
      shapes.back().back() = size;
    }
    const Attributes attributes = {{"split_dim", static_cast<int64_t>(shape(x).size()) - 1},
                                   {"split_num", static_cast<int64_t>(sizes.size())},
                                   {"split_sizes", sizes}};
    return op("Split", attributes, {x}, std::move(shapes), dtype(x));
  }
  // Returns the same memory with another shape.
  Value reshape(Value x, Shape wanted) {
    require("Reshape", {x});
    return op("Reshape", {}, {x}, {std::move(wanted)}, dtype(x))[0];
  }
  // q, k [tokens, heads * head_dim], cos and sin [tokens, head_dim]
  std::vector<Value> rope(Value q, Value k, Value cos, Value sin, Value seq_len) {
    require("Rope", {q, k});
    return op("Rope", {{"rotary_coeff", int64_t{2}}}, {q, k, cos, sin, seq_len}, {shape(q), shape(k)}, dtype(q));
  }
  // silu(first half) * second half of the last dimension, whose half is `inner`
  Value swiglu(Value x, Size inner) {
    require_rank("Activation", "x", x, 1);
    Shape result = shape(x);
    result.back() = std::move(inner);
    const Attributes attributes = {{"activation_type", std::string("ACTIVATION_SWIGLU_FORWARD")}};
    return op("Activation", attributes, {x}, {result}, dtype(x))[0];
  }
  // A cache of int8 gets the integers and a float32 scale for each head of a token: it is head_dim + 4 wide. packed_kv: only
  // paged_attention() with packed_kv reads the caches, so that an engine may keep them in an order of its own.
  void reshape_and_cache(Value k, Value v, Value k_cache, Value v_cache, Value slots, bool packed_kv = false) {
    require("ReshapeAndCache", {k, k_cache});
    const bool int8_kv = dtype(k_cache) == DataType::i8 && dtype(k) != DataType::i8;
    op("ReshapeAndCache", {{"int8_kv", int8_kv}, {"packed_kv", packed_kv}}, {k, v, k_cache, v_cache, slots}, {},
       dtype(k));
  }
  // Causal attention of whole prompts; q, k, v [tokens, heads, head_dim]; int8_kv: rounded as in a cache of int8
  Value self_attention(Value q, Value k, Value v, Value mask, Value seq_len, int64_t heads, int64_t kv_heads,
                       double scale, bool int8_kv = false) {
    require("SelfAttention", {q});
    Attributes attributes = attention_attributes(heads, kv_heads, scale, "MASK_TYPE_NORM", "PA_ENCODER", int8_kv);
    attributes.emplace("is_triu_mask", true);
    return op("SelfAttention", std::move(attributes), {q, k, v, mask, seq_len}, {shape(q)}, dtype(q))[0];
  }
  // Attention of one new token of each sequence over the cache
  Value paged_attention(Value q, Value k_cache, Value v_cache, Value block_table, Value seq_len, int64_t heads,
                        int64_t kv_heads, double scale, bool packed_kv = false) {
    require("PagedAttention", {q, k_cache});
    Attributes attributes = attention_attributes(heads, kv_heads, scale, "MASK_TYPE_UNDEFINED", "CALC_TYPE_UNDEFINED",
                                                 dtype(k_cache) == DataType::i8);
    attributes.emplace("packed_kv", packed_kv);
    return op("PagedAttention", std::move(attributes), {q, k_cache, v_cache, block_table, seq_len}, {shape(q)},
              dtype(q))[0];
  }
  Value cast(Value x, DataType to) {
    require("Cast", {x});
    return op("Cast", {}, {x}, {shape(x)}, to)[0];
  }

  const Shape& shape(Value value) const { return tensors_[number(value, "shape()")].shape; }
  DataType dtype(Value value) const { return tensors_[number(value, "dtype()")].dtype; }
  const std::vector<Tensor>& tensors() const { return tensors_; }
  const std::vector<Node>& nodes() const { return nodes_; }

 private:
  static Attributes attention_attributes(int64_t heads, int64_t kv_heads, double scale, const char* mask_type,
                                         const char* calc_type, bool int8_kv) {
    return {{"head_num", heads},
            {"kv_head_num", kv_heads},
            {"qk_scale", scale},
            {"mask_type", std::string(mask_type)},
            {"calc_type", std::string(calc_type)},
            {"int8_kv", int8_kv}};
  }
  [[noreturn]] void wrong(const std::string& op, const std::string& why) const {
    throw std::runtime_error(op + (label_.empty() ? "" : " at " + label_) + ": " + why);
  }
  // Returns the index of a value's tensor.
  size_t number(Value value, const std::string& op) const {
    if (value.id < 0) wrong(op, "it is given a Value that was never made");
    const auto place = static_cast<size_t>(value.id);
    if (place < tensors_.size()) return place;
    wrong(op, "there is no tensor " + std::to_string(value.id) + ", is it a Value of another graph?");
  }
  void require(const char* op, std::initializer_list<Value> values) const {
    for (Value value : values) static_cast<void>(number(value, op));
  }
  void require_rank(const char* op, const char* what, Value value, size_t least,
                    size_t most = static_cast<size_t>(-1)) const {
    const size_t rank = tensors_[number(value, op)].shape.size();
    if (rank >= least && rank <= most) return;
    const std::string wanted = std::to_string(least) + (most == least ? "" : " or more");
    wrong(op, std::string(what) + " has rank " + std::to_string(rank) + " where " + wanted + " is needed");
  }
  Value make(std::string name, DataType dtype, Role role, Shape shape) {
    tensors_.push_back({std::move(name), dtype, role, std::move(shape)});
    return {static_cast<int>(tensors_.size()) - 1};
  }

  std::string label_;
  int segment_ = 0;
  std::vector<Tensor> tensors_;
  std::vector<Node> nodes_;
};

}  // namespace atb_core
