// SPDX-License-Identifier: Apache-2.0
#include <algorithm>

#include "atb/layout.h"
#include "atb/lower_rules.h"

namespace atb_core::ascend {

std::string type_list(const std::vector<DataType>& types) {
  std::string text;
  for (size_t i = 0; i < types.size(); ++i) {
    if (i > 0) text += i + 1 == types.size() ? " or " : ", ";
    text += name(types[i]);
  }
  return text;
}

bool one_of(DataType type, std::initializer_list<DataType> types) {
  return std::find(types.begin(), types.end(), type) != types.end();
}

void require_type(const Lowering& l, int input, const char* what, DataType type) {
  const DataType real = l.input(input).dtype;
  l.require(real == type, what, " is ", name(real), ", and has to be ", name(type));
}

void require_result_type(const Lowering& l, int output) {
  const DataType real = l.output(output).dtype, type = l.input(0).dtype;
  l.require(real == type, "output ", output, " is ", name(real), ", but ATB gives ", name(type), " as the input is");
}

int axis_of(const Lowering& l, int64_t axis, int rank) {
  l.require(axis >= -rank && axis < rank, "dimension ", axis, " does not exist in a tensor of ", rank);
  return static_cast<int>(axis < 0 ? axis + rank : axis);
}

void require_nz(Lowering& l, int input, const char* what) {
  if (!l.device().nz) return;
  const TensorKind kind = l.input(input).kind;
  l.require(kind == TensorKind::input || kind == TensorKind::weight, what,
            " has to be in FRACTAL_NZ there, so it must ", "be an input of the network and not be computed in it");
  l.layout(input, Layout::nz);
}

void add_cast(Lowering& l, int from, int to, DataType type) {
  ::atb::infer::ElewiseParam param{};
  param.elewiseType = ::atb::infer::ElewiseParam::ELEWISE_CAST;
  param.outTensorType = acl_type(type);
  l.add("Elewise", param, {from}, {to});
}

void add_slice(Lowering& l, const std::vector<int64_t>& offsets, const std::vector<int64_t>& sizes, int to) {
  ::atb::infer::SliceParam param{};
  for (int64_t offset : offsets) param.offsets.push_back(offset);
  for (int64_t size : sizes) param.size.push_back(size);
  l.add("Slice", param, {l.in(0)}, {to});
}

bool slice_takes(DataType type) {
  using enum DataType;
  return one_of(type, {f16, bf16, f32, i8, i32, b8});
}

}  // namespace atb_core::ascend
