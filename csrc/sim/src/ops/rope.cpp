// SPDX-License-Identifier: Apache-2.0
#include <atb/atb_infer.h>

#include "ops/columns.h"
#include "ops/numeric.h"
#include "ops/shapes.h"
#include "rules.h"

namespace atb::sim {
namespace {

using infer::RopeParam;
constexpr const char* kName = "RopeOperation";

// Every head is cut into `groups` parts; in each the halves (x0, x1) turn into (x0 cos - x1 sin, x1 cos + x0 sin).
void rotate(const float* x, const float* cos, const float* sin, int64_t width, int64_t groups, float* out) {
  const int64_t part = width / groups, half = part / 2;
  for (int64_t j = 0; j < width; ++j) {
    const bool first = j % part < half;
    const float turned = first ? -x[j + half] : x[j - half];
    out[j] = x[j] * cos[j] + turned * sin[j];
  }
}

void rotate_rows(const View& x, const View& y, const std::vector<float>& cos, const std::vector<float>& sin,
                 const std::vector<int64_t>& position, int64_t width, int64_t groups) {
  const auto tokens = static_cast<int64_t>(position.size());
  const int64_t hidden = x.count() / tokens;
  std::vector<float> row(static_cast<size_t>(hidden)), turned(row.size());
  for (int64_t t = 0; t < tokens; ++t) {
    load(x.data, x.dtype, t * hidden, hidden, row.data());
    const int64_t at = position[static_cast<size_t>(t)] * width;
    for (int64_t h = 0; h < hidden; h += width) {
      rotate(row.data() + h, cos.data() + at, sin.data() + at, width, groups, turned.data() + h);
    }
    store(turned.data(), y.dtype, t * hidden, hidden, y.data);
  }
}

// The row of cos for each token: its own number, or its place in its sequence.
std::vector<int64_t> positions(int64_t tokens, const View& lengths, bool per_sequence, int64_t rows) {
  std::vector<int64_t> out(static_cast<size_t>(tokens));
  if (!per_sequence) {
    for (int64_t t = 0; t < tokens; ++t) out[static_cast<size_t>(t)] = t;
    return out;
  }
  int64_t token = 0;
  for (int64_t b = 0; b < lengths.count(); ++b) {
    const int64_t length = load_integer(lengths.data, lengths.dtype, b);
    if (length > rows || token + length > tokens) throw std::runtime_error("RopeOperation: seqLen exceeds cos or q");
    for (int64_t i = 0; i < length; ++i) out[static_cast<size_t>(token++)] = i;
  }
  return out;
}

class Rope : public PlainRules {
 public:
  explicit Rope(const RopeParam& param) : PlainRules(kName, 5, 2), param_(param) {}

 protected:
  Status shapes(const std::vector<TensorDesc>& in, std::vector<TensorDesc>& out) const override {
    const TensorDesc &q = in[0], &k = in[1], &cos = in[2];
    if ((rank(q) != 2 && rank(q) != 4) || rank(q) != rank(k)) {
      return refuse(ERROR_INVALID_TENSOR_DIM_NUM, "q ", text(q), " and k ", text(k),
                    " must both have 2 dimensions [tokens, hidden] or both 4 [batch, length, heads, head size]");
    }
    if (rank(cos) != 2 || sizes(cos) != sizes(in[3])) {
      return refuse(ERROR_INVALID_TENSOR_DIM, "cos ", text(cos), " and sin ", text(in[3]), " must be equal and 2-D");
    }
    if (rank(in[4]) != 1) {
      return refuse(ERROR_INVALID_TENSOR_DIM_NUM, "seqLen ", text(in[4]), " must have one dimension");
    }
    if (tokens(q) != tokens(k) || (param_.cosFormat == 0 && dim(cos, 0) < tokens(q))) {
      return refuse(ERROR_INVALID_TENSOR_DIM, "q ", text(q), ", k ", text(k), " and cos ", text(cos),
                    " differ in their number of tokens");
    }
    out[0] = q;
    out[1] = k;
    return NO_ERROR;
  }

  Status limits(const std::vector<TensorDesc>& in, const std::vector<TensorDesc>&) const override {
    const int64_t width = dim(in[2], 1), coeff = param_.rotaryCoeff;
    const int64_t q = elements(in[0]) / tokens(in[0]), k = elements(in[1]) / tokens(in[1]);
    if (family() != Family::a5 && (width < 16 || width > 4096)) {
      return refuse(ERROR_INVALID_TENSOR_DIM, "the head size ", width, " of cos is not in 16..4096");
    }
    if (coeff != 2 && coeff != 4 && coeff != width) {
      return refuse(ERROR_INVALID_PARAM, "rotaryCoeff ", coeff, " is none of 2, 4 and the head size ", width);
    }
    if (width % coeff != 0) {
      return refuse(ERROR_INVALID_TENSOR_DIM, "the head size ", width, " is no multiple of rotaryCoeff ", coeff);
    }
    if (q % k != 0 || k % width != 0) {
      return refuse(ERROR_INVALID_TENSOR_DIM, "q's width ", q, " must be a multiple of k's ", k,
                    ", and that of the head size ", width);
    }
    return NO_ERROR;
  }

  Kernel kernel() const override {
    return [param = param_](const Views& in, const Views& out) {
      const View& table = in[2];
      const int64_t rows = table.dims[0], width = table.dims[1], tokens = in[0].count() / row_width(in[0]);
      std::vector<float> cos(static_cast<size_t>(rows * width)), sin(cos.size());
      load(table.data, table.dtype, 0, rows * width, cos.data());
      load(in[3].data, in[3].dtype, 0, rows * width, sin.data());
      const std::vector<int64_t> at = positions(tokens, in[4], param.cosFormat == 1, rows);
      for (size_t i = 0; i < 2; ++i) rotate_rows(in[i], out[i], cos, sin, at, width, param.rotaryCoeff / 2);
    };
  }

 private:
  static int64_t tokens(const TensorDesc& x) { return rank(x) == 2 ? dim(x, 0) : dim(x, 0) * dim(x, 1); }
  static int64_t row_width(const View& x) { return x.dims.size() == 2 ? x.dims[1] : x.dims[2] * x.dims[3]; }

  RopeParam param_;
};

}  // namespace

Status make_rules(const RopeParam& param, std::unique_ptr<OpRules>& rules) {
  ATB_SIM_TRY(check_reserved(kName, param.rsv));
  if (param.rotaryCoeff < 2 || param.rotaryCoeff % 2 != 0) {
    return reject(ERROR_INVALID_PARAM, kName, ": rotaryCoeff ", param.rotaryCoeff, " is no positive even number");
  }
  if (param.cosFormat != 0 && param.cosFormat != 1) {
    return reject(ERROR_INVALID_PARAM, kName, ": cosFormat ", param.cosFormat, " is neither 0 nor 1");
  }
  rules = std::make_unique<Rope>(param);
  return NO_ERROR;
}

}  // namespace atb::sim
