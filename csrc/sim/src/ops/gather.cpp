// SPDX-License-Identifier: Apache-2.0
#include <atb/atb_infer.h>

#include <cstring>

#include "ops/numeric.h"
#include "ops/shapes.h"
#include "rules.h"

namespace atb::sim {
namespace {

using infer::GatherParam;

// x [batch, outer, size, inner], indices [batch, count] -> [batch, outer, count, inner].
struct GatherSizes {
  int64_t batch = 1, outer = 1, size = 1, inner = 1, count = 1;
};

GatherSizes gather_sizes(const GatherParam& param, const Sizes& x, const Sizes& indices) {
  const auto axis = static_cast<size_t>(axis_of(param.axis, static_cast<int64_t>(x.size())));
  const auto shared = static_cast<size_t>(param.batchDims);
  return {product(x, 0, shared), product(x, shared, axis), x[axis], product(x, axis + 1, x.size()),
          product(indices, shared, indices.size())};
}

void gather(const GatherSizes& s, const Views& in, const View& out) {
  const size_t bytes = size_of(out.dtype), run = static_cast<size_t>(s.inner) * bytes;
  std::byte* to = out.data;
  for (int64_t b = 0; b < s.batch; ++b) {
    for (int64_t o = 0; o < s.outer; ++o) {
      for (int64_t i = 0; i < s.count; ++i) {
        const int64_t index = load_integer(in[1].data, in[1].dtype, b * s.count + i);
        if (index < 0 || index >= s.size) {
          throw std::runtime_error("GatherOperation: index " + std::to_string(index) + " is outside of an axis of " +
                                   std::to_string(s.size));
        }
        const int64_t row = (b * s.outer + o) * s.size + index;
        if (run > 0) std::memcpy(to, in[0].data + static_cast<size_t>(row) * run, run);
        to += run;
      }
    }
  }
}

class Gather : public PlainRules {
 public:
  explicit Gather(const GatherParam& param) : PlainRules("GatherOperation", 2, 1), param_(param) {}

 protected:
  Status shapes(const std::vector<TensorDesc>& in, std::vector<TensorDesc>& out) const override {
    const Sizes x = sizes(in[0]), indices = sizes(in[1]);
    const int64_t axis = axis_of(param_.axis, rank(in[0]));
    if (axis < 0 || param_.batchDims > axis || param_.batchDims > rank(in[1])) {
      return refuse(ERROR_INVALID_PARAM, "axis ", param_.axis, " and batchDims ", param_.batchDims, " do not fit ",
                    text(in[0]), " and ", text(in[1]));
    }
    Sizes shape(x.begin(), x.begin() + axis);
    for (size_t i = 0; i < static_cast<size_t>(param_.batchDims); ++i) {
      if (x[i] != indices[i])
        return refuse(ERROR_INVALID_TENSOR_DIM, text(in[0]), " and ", text(in[1]), " differ in a batch dimension");
    }
    shape.insert(shape.end(), indices.begin() + param_.batchDims, indices.end());
    shape.insert(shape.end(), x.begin() + axis + 1, x.end());
    if (shape.empty() || shape.size() > MAX_DIM) {
      return refuse(ERROR_INVALID_TENSOR_DIM_NUM, "the result would have ", shape.size(), " dimensions");
    }
    out[0] = with_sizes(in[0], shape);
    return NO_ERROR;
  }

  Kernel kernel() const override {
    return [param = param_](const Views& in, const Views& out) {
      gather(gather_sizes(param, in[0].dims, in[1].dims), in, out[0]);
    };
  }

 private:
  GatherParam param_;
};

}  // namespace

Status make_rules(const GatherParam& param, std::unique_ptr<OpRules>& rules) {
  ATB_SIM_TRY(check_reserved("GatherOperation", param.rsv));
  if (param.axis < 0 || param.batchDims < 0 || param.batchDims > param.axis) {
    return reject(ERROR_INVALID_PARAM, "GatherOperation: axis ", param.axis, " and batchDims ", param.batchDims,
                  " must not be negative, nor batchDims the larger");
  }
  rules = std::make_unique<Gather>(param);
  return NO_ERROR;
}

}  // namespace atb::sim
