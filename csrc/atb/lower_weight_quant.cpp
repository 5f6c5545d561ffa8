// SPDX-License-Identifier: Apache-2.0
// Linear with a weight that is stored as integers (W8A16, W4A16).
#include <array>

#include "atb/aclnn_calls.h"
#include "atb/lower_rules.h"

namespace atb_core::ascend {
namespace {

constexpr int64_t kMostSize = 65535;
constexpr int64_t kGroupStep = 32;

struct Matrix {
  const DeviceInfo& device;
  DataType dtype;
  int64_t n, k;
  const QuantFormat& format;
};

// What the call takes, by its public page. A group of all elements is none.
struct Rule {
  bool (*holds)(const Matrix&);
  const char* otherwise;
};
constexpr Rule kRules[] = {
    {[](const Matrix& m) {
       return !m.device.nz || (m.dtype == DataType::f16 && m.format.bits == 8 && m.format.group == 0);
     },
     "there they have 8 bits and a scale for each row, beside float16 (--quantization int8)"},
    {[](const Matrix& m) { return one_of(m.dtype, {DataType::f16, DataType::bf16}); },
     "activations are float16 or bfloat16"},
    {[](const Matrix& m) { return m.n >= 1 && m.n <= kMostSize && m.k >= 1 && m.k <= kMostSize; },
     "no size is above 65535"},
    {[](const Matrix& m) { return m.format.bits == 8 || m.format.bits == 4; }, "integers have 8 or 4 bits"},
    {[](const Matrix& m) {
       const int64_t group = m.format.group;
       return group == 0 || (group % kGroupStep == 0 && group > 0 && group < m.k && m.k % group == 0);
     },
     "a group is a multiple of 32 elements, several of which make up a row"},
    {[](const Matrix& m) { return m.format.bits == 8 || (m.format.group > 0 ? m.n : m.k) % 2 == 0; },
     "integers of 4 bits lie in pairs, so n (in groups, else k) is even"},
};

}  // namespace

std::string quant_problem(const DeviceInfo& device, DataType dtype, int64_t n, int64_t k, const QuantFormat& format) {
  for (const Rule& rule : kRules) {
    if (rule.holds({device, dtype, n, k, format})) continue;
    return std::string(device.name) + " does not multiply by integers of " + std::to_string(format.bits) +
           " bits, a matrix [" + std::to_string(n) + ", " + std::to_string(k) + "] of a network in " +
           std::string(name(dtype)) +
           (format.group > 0 ? ", in groups of " + std::to_string(format.group) : std::string()) + ": " +
           rule.otherwise;
  }
  return "";
}

void lower_weight_quant(Lowering& l, const QuantFormat& format) {
  using namespace weight_quant;
  const bool has_bias = l.flag("has_bias");
  const DataType type = l.input(0).dtype;
  const std::string problem = quant_problem(l.device(), l.input(1).dtype, *l.size(1, 0), *l.size(1, 1), format);
  l.require(problem.empty(), problem);
  require_type(l, 1, "the weight", type);
  require_result_type(l);
  l.require(l.rank(0) == 2 && !l.flag("transpose_a") && l.flag("transpose_b"),
            "x and weights of integers have to be [m, k] and [n, k] (transpose_b): reshape x first");
  const bool groups = format.group > 0, pairs = format.bits == 4;
  const AclnnView view =
      groups ? (pairs ? AclnnView::int4 : AclnnView::plain) : (pairs ? AclnnView::int4_turned : AclnnView::turned);
  AclnnParam param{&kCall, {{x}, {weight, view}, {scale}}, {{y}}, {format.group}};
  std::vector<int> inputs = {l.in(0), l.part(1, Layout::integers), l.part(1, Layout::scales)};
  if (format.offsets) {
    param.inputs.push_back({offset});
    inputs.push_back(l.part(1, Layout::offsets));
  }
  if (has_bias) {
    // Beside bfloat16 the call takes a bias of float32 only.
    const DataType wanted = type == DataType::bf16 ? DataType::f32 : type, given = l.input(2).dtype;
    l.require(given == wanted || given == type, "the bias is ", name(given), ", and has to be ", name(type));
    int value = l.in(2);
    if (given != wanted) add_cast(l, l.in(2), value = l.internal(), wanted);
    param.inputs.push_back({bias});
    inputs.push_back(value);
  }
  l.add_call(std::move(param), std::move(inputs), {l.out(0)});
}

}  // namespace atb_core::ascend
