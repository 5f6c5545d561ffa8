// SPDX-License-Identifier: Apache-2.0
// Activation, Elewise and Cast.
#include <algorithm>

#include "atb/lower_rules.h"

namespace atb_core::ascend {
namespace {

using ::atb::infer::ActivationParam;
using ::atb::infer::ElewiseParam;
using enum DataType;

constexpr int64_t kSwigluStep310p = 32;

struct ActivationRow {
  std::string_view name;
  ::atb::infer::ActivationType type;
  std::vector<DataType> types;
};

const std::vector<ActivationRow>& activations() {
  static const std::vector<ActivationRow> kRows = {
      {"ACTIVATION_RELU", ::atb::infer::ACTIVATION_RELU, {bf16, f32}},
      {"ACTIVATION_GELU", ::atb::infer::ACTIVATION_GELU, {f16, bf16, f32}},
      {"ACTIVATION_FAST_GELU", ::atb::infer::ACTIVATION_FAST_GELU, {f16, bf16}},
      {"ACTIVATION_SWISH", ::atb::infer::ACTIVATION_SWISH, {f16, bf16}},
      {"ACTIVATION_LOG", ::atb::infer::ACTIVATION_LOG, {f16, bf16, f32}},
      {"ACTIVATION_SWIGLU_FORWARD", ::atb::infer::ACTIVATION_SWIGLU_FORWARD, {f16, bf16, f32}},
      {"ACTIVATION_SIGMOID", ::atb::infer::ACTIVATION_SIGMOID, {f16, bf16}},
  };
  return kRows;
}

struct ElewiseRow {
  std::string_view name;
  ElewiseParam::ElewiseType type;
  int inputs;
  bool truth;  // gives int8
  std::vector<DataType> types;
};

const std::vector<ElewiseRow>& elewise_rows() {
  static const std::vector<ElewiseRow> kRows = {
      {"ELEWISE_ADD", ElewiseParam::ELEWISE_ADD, 2, false, {f16, bf16, f32, i32, i64}},
      {"ELEWISE_SUB", ElewiseParam::ELEWISE_SUB, 2, false, {f16, bf16, i64}},
      {"ELEWISE_MUL", ElewiseParam::ELEWISE_MUL, 2, false, {f16, bf16}},
      {"ELEWISE_REALDIV", ElewiseParam::ELEWISE_REALDIV, 2, false, {f16, bf16, f32}},
      {"ELEWISE_MULS", ElewiseParam::ELEWISE_MULS, 1, false, {f16, bf16, f32}},
      {"ELEWISE_COS", ElewiseParam::ELEWISE_COS, 1, false, {f16, bf16, f32}},
      {"ELEWISE_SIN", ElewiseParam::ELEWISE_SIN, 1, false, {f16, bf16, f32}},
      {"ELEWISE_NEG", ElewiseParam::ELEWISE_NEG, 1, false, {f16, bf16}},
      {"ELEWISE_TANH", ElewiseParam::ELEWISE_TANH, 1, false, {f16, bf16}},
      {"ELEWISE_LOGICAL_NOT", ElewiseParam::ELEWISE_LOGICAL_NOT, 1, true, {i8}},
      {"ELEWISE_LOGICAL_AND", ElewiseParam::ELEWISE_LOGICAL_AND, 2, true, {i8}},
      {"ELEWISE_LOGICAL_OR", ElewiseParam::ELEWISE_LOGICAL_OR, 2, true, {i8}},
      {"ELEWISE_LESS", ElewiseParam::ELEWISE_LESS, 2, true, {f16, bf16, f32, i64}},
      {"ELEWISE_GREATER", ElewiseParam::ELEWISE_GREATER, 2, true, {f16, bf16, f32, i64}},
      {"ELEWISE_EQUAL", ElewiseParam::ELEWISE_EQUAL, 2, true, {f16, bf16, f32}},
  };
  return kRows;
}

template <typename Row>
const Row& row_named(const Lowering& l, const std::vector<Row>& rows, std::string_view wanted) {
  const auto found = std::find_if(rows.begin(), rows.end(), [&](const Row& row) { return row.name == wanted; });
  l.require(found != rows.end(), "ATB has no ", wanted);
  return *found;
}

void check_type(const Lowering& l, std::string_view what, const std::vector<DataType>& types) {
  const DataType type = l.input(0).dtype;
  l.require(std::find(types.begin(), types.end(), type) != types.end(), "ATB's ", what, " takes ", type_list(types),
            ", not ", name(type), ": cast x", is_float(type) ? ", or run the model in float16" : "");
}

// ATB's RELU does not support float16. Every float16 is a float32, so casting loses nothing.
void add_wide(Lowering& l, const ActivationParam& param) {
  const int wide = l.internal(), result = l.internal();
  add_cast(l, l.in(0), wide, f32);
  l.add("Activation", param, {wide}, {result});
  add_cast(l, result, l.out(0), f16);
}

// ATB checks a symbolic size.
void check_swiglu(const Lowering& l) {
  const auto width = l.size(0, l.rank(0) - 1);
  l.require(!l.device().nz || !width || *width % kSwigluStep310p == 0, "the last dimension of x is ", width.value_or(0),
            "; SWIGLU_FORWARD wants a multiple of ", kSwigluStep310p, " there: pad gate and value with zeros");
}

bool one_step(DataType from, DataType to) {
  return (from == f32 && one_of(to, {f16, bf16})) || (to == f32 && one_of(from, {f16, bf16})) ||
         (from == i32 && to == i64) || (from == i64 && to == i32);
}

}  // namespace

void lower_activation(Lowering& l) {
  const ActivationRow& row = row_named(l, activations(), l.text("activation_type"));
  require_result_type(l);
  const int64_t dim = l.integer("dim");
  l.require(axis_of(l, dim, l.rank(0)) == l.rank(0) - 1, "dim is ", dim, "; only the last one is possible");
  const std::string& mode = l.text("gelu_mode");
  l.require(mode == "TANH_MODE" || mode == "NONE_MODE", "gelu_mode ", mode, " is unknown");
  ActivationParam param{};
  param.activationType = row.type;
  param.scale = l.number("scale");
  param.dim = -1;
  param.geluMode = mode == "TANH_MODE" ? ActivationParam::TANH_MODE : ActivationParam::NONE_MODE;
  if (row.type == ::atb::infer::ACTIVATION_RELU && l.input(0).dtype == f16) return add_wide(l, param);
  check_type(l, row.name, row.types);
  if (row.type == ::atb::infer::ACTIVATION_SWIGLU_FORWARD) check_swiglu(l);
  l.add("Activation", param, {l.in(0)}, {l.out(0)});
}

void lower_elewise(Lowering& l) {
  const ElewiseRow& row = row_named(l, elewise_rows(), l.text("elewise_type"));
  l.require(l.num_inputs() == row.inputs, "it has ", l.num_inputs(), " inputs, not ", row.inputs);
  check_type(l, row.name, row.types);
  std::vector<int> inputs = {l.in(0)};
  if (row.inputs == 2) {
    require_type(l, 1, "b", l.input(0).dtype);
    inputs.push_back(l.in(1));
  }
  const DataType result = row.truth ? i8 : l.input(0).dtype;
  l.require(l.output(0).dtype == result, "its result is ", name(l.output(0).dtype), ", but ATB gives ", name(result));
  ElewiseParam param{};
  param.elewiseType = row.type;
  if (row.type == ElewiseParam::ELEWISE_MULS) param.mulsParam.varAttr = l.number("var_attr");
  l.add("Elewise", param, inputs, {l.out(0)});
}

void lower_cast(Lowering& l) {
  const DataType from = l.input(0).dtype, to = l.output(0).dtype;
  if (from == to) {
    l.require(slice_takes(from), "ATB copies no ", name(from), ", which it is already: leave the Cast away");
    const std::vector<int64_t> all(static_cast<size_t>(l.rank(0)), -1);
    add_slice(l, std::vector<int64_t>(all.size(), 0), all, l.out(0));
  } else if (one_step(from, to)) {
    add_cast(l, l.in(0), l.out(0), to);
  } else if (one_of(from, {f16, bf16}) && one_of(to, {f16, bf16})) {
    const int wide = l.internal();
    add_cast(l, l.in(0), wide, f32);
    add_cast(l, wide, l.out(0), to);
  } else {
    l.refuse("ATB casts between floating-point types, and between int32 and int64, not from ", name(from), " to ",
             name(to), ": give the network an input of that type");
  }
}

}  // namespace atb_core::ascend
