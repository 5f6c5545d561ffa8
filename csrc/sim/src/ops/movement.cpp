// SPDX-License-Identifier: Apache-2.0
// Concat, Split, Slice, Transpose, Repeat and SetValue: each is copies of boxes.
#include "ops/movement.h"

#include <atb/atb_infer.h>

#include <cstring>

#include "ops/numeric.h"
#include "rules.h"

namespace atb::sim {

Sizes dense(const Sizes& shape) {
  Sizes strides(shape.size(), 1);
  for (size_t i = shape.size(); i-- > 1;) strides[i - 1] = strides[i] * shape[i];
  return strides;
}

void copy_box(const Sizes& shape, const Box& from, const Box& to, size_t bytes) {
  const size_t last = shape.size() - 1;
  const bool together = from.strides[last] == 1 && to.strides[last] == 1;
  const int64_t run = together ? shape[last] : 1, runs = product(shape) / run;
  for (int64_t i = 0; i < runs; ++i) {
    int64_t rest = i, source = from.first, target = to.first;
    for (size_t axis = together ? last : last + 1; axis-- > 0;) {
      source += rest % shape[axis] * from.strides[axis];
      target += rest % shape[axis] * to.strides[axis];
      rest /= shape[axis];
    }
    std::memcpy(to.data + static_cast<size_t>(target) * bytes, from.data + static_cast<size_t>(source) * bytes,
                static_cast<size_t>(run) * bytes);
  }
}

namespace {

Box whole(const View& view) { return {view.data, 0, dense(view.dims)}; }

Box part(const View& view, size_t axis, int64_t begin) {
  Box box = whole(view);
  box.first = begin * box.strides[axis];
  return box;
}

class Concat : public PlainRules {
 public:
  explicit Concat(int64_t axis) : PlainRules("ConcatOperation", 2, 1), axis_(axis) {}

 protected:
  Status shapes(const std::vector<TensorDesc>& in, std::vector<TensorDesc>& out) const override {
    const int64_t axis = axis_of(axis_, rank(in[0]));
    Sizes shape = sizes(in[0]), other = sizes(in[1]);
    if (axis < 0 || shape.size() != other.size()) {
      return refuse(ERROR_INVALID_TENSOR_DIM, text(in[0]), " and ", text(in[1]), " have no common axis ", axis_);
    }
    const auto at = static_cast<size_t>(axis);
    shape[at] += other[at];
    other[at] = shape[at];
    if (shape != other) {
      return refuse(ERROR_INVALID_TENSOR_DIM, text(in[0]), " and ", text(in[1]), " differ beside axis ", axis_);
    }
    out[0] = with_sizes(in[0], shape);
    return NO_ERROR;
  }

  Kernel kernel() const override {
    return [axis = axis_](const Views& in, const Views& out) {
      const auto at = static_cast<size_t>(axis_of(axis, static_cast<int64_t>(out[0].dims.size())));
      const size_t bytes = size_of(out[0].dtype);
      copy_box(in[0].dims, whole(in[0]), part(out[0], at, 0), bytes);
      copy_box(in[1].dims, whole(in[1]), part(out[0], at, in[0].dims[at]), bytes);
    };
  }

 private:
  int64_t axis_;
};

using infer::SplitParam;

class Split : public PlainRules {
 public:
  explicit Split(const SplitParam& param)
      : PlainRules("SplitOperation", 1, static_cast<uint32_t>(param.splitNum)), param_(param) {}

 protected:
  std::string key() const override { return name() + std::to_string(outputs()); }

  Status shapes(const std::vector<TensorDesc>& in, std::vector<TensorDesc>& out) const override {
    const int64_t axis = axis_of(param_.splitDim, rank(in[0]));
    if (axis < 0) return refuse(ERROR_INVALID_PARAM, text(in[0]), " has no axis ", param_.splitDim);
    const int64_t size = dim(in[0], axis), parts = param_.splitNum;
    if (param_.splitSizes.size() == 0 && size % parts != 0) {
      return refuse(ERROR_INVALID_PARAM, "axis ", axis, " of ", text(in[0]), " does not divide by ", parts);
    }
    int64_t total = 0;
    for (size_t i = 0; i < out.size(); ++i) {
      Sizes shape = sizes(in[0]);
      shape[static_cast<size_t>(axis)] = param_.splitSizes.size() == 0 ? size / parts : param_.splitSizes[i];
      total += shape[static_cast<size_t>(axis)];
      out[i] = with_sizes(in[0], shape);
    }
    if (total == size) return NO_ERROR;
    return refuse(ERROR_INVALID_PARAM, "splitSizes add up to ", total, ", axis ", axis, " of ", text(in[0]),
                  " does not");
  }

  Kernel kernel() const override {
    return [axis = param_.splitDim](const Views& in, const Views& out) {
      const auto at = static_cast<size_t>(axis_of(axis, static_cast<int64_t>(in[0].dims.size())));
      int64_t begin = 0;
      for (const View& y : out) {
        copy_box(y.dims, part(in[0], at, begin), whole(y), size_of(y.dtype));
        begin += y.dims[at];
      }
    };
  }

 private:
  SplitParam param_;
};

using infer::SliceParam;

class Slice : public PlainRules {
 public:
  explicit Slice(const SliceParam& param) : PlainRules("SliceOperation", 1, 1), param_(param) {}

 protected:
  Status shapes(const std::vector<TensorDesc>& in, std::vector<TensorDesc>& out) const override {
    Sizes shape = sizes(in[0]);
    if (param_.offsets.size() != shape.size() || param_.size.size() != shape.size()) {
      return refuse(ERROR_INVALID_PARAM, param_.offsets.size(), " offsets and ", param_.size.size(), " sizes for ",
                    text(in[0]));
    }
    for (size_t i = 0; i < shape.size(); ++i) {
      const int64_t begin = start(param_, i, shape[i]);
      const int64_t size = param_.size[i] == -1 ? shape[i] - begin : param_.size[i];
      if (begin < 0 || size <= 0 || begin > shape[i] - size) {
        return refuse(ERROR_INVALID_PARAM, "offset ", param_.offsets[i], " and size ", param_.size[i],
                      " do not fit axis ", i, " of ", text(in[0]));
      }
      shape[i] = size;
    }
    out[0] = with_sizes(in[0], shape);
    return NO_ERROR;
  }

  Kernel kernel() const override {
    return [param = param_](const Views& in, const Views& out) {
      Box from = whole(in[0]);
      for (size_t i = 0; i < from.strides.size(); ++i) from.first += start(param, i, in[0].dims[i]) * from.strides[i];
      copy_box(out[0].dims, from, whole(out[0]), size_of(out[0].dtype));
    };
  }

 private:
  // A negative offset counts from the end.
  static int64_t start(const SliceParam& param, size_t axis, int64_t size) {
    return param.offsets[axis] < 0 ? param.offsets[axis] + size : param.offsets[axis];
  }

  SliceParam param_;
};

using infer::TransposeParam;

class Transpose : public PlainRules {
 public:
  explicit Transpose(const TransposeParam& param) : PlainRules("TransposeOperation", 1, 1), param_(param) {}

 protected:
  Status shapes(const std::vector<TensorDesc>& in, std::vector<TensorDesc>& out) const override {
    const Sizes shape = sizes(in[0]);
    Sizes turned(shape.size(), 0);
    std::vector<bool> seen(shape.size(), false);
    bool valid = param_.perm.size() == shape.size();
    for (size_t i = 0; valid && i < shape.size(); ++i) {
      const int64_t axis = param_.perm[i];
      valid = axis >= 0 && axis < rank(in[0]) && !seen[static_cast<size_t>(axis)];
      if (!valid) break;
      seen[static_cast<size_t>(axis)] = true;
      turned[i] = shape[static_cast<size_t>(axis)];
    }
    if (!valid) return refuse(ERROR_INVALID_PARAM, "perm is no permutation of the axes of ", text(in[0]));
    out[0] = with_sizes(in[0], turned);
    return NO_ERROR;
  }

  Kernel kernel() const override {
    return [param = param_](const Views& in, const Views& out) {
      const Sizes strides = dense(in[0].dims);
      Box from{in[0].data, 0, strides};
      for (size_t i = 0; i < strides.size(); ++i) from.strides[i] = strides[static_cast<size_t>(param.perm[i])];
      copy_box(out[0].dims, from, whole(out[0]), size_of(out[0].dtype));
    };
  }

 private:
  TransposeParam param_;
};

using infer::RepeatParam;

class Repeat : public PlainRules {
 public:
  explicit Repeat(const RepeatParam& param) : PlainRules("RepeatOperation", 1, 1), param_(param) {}

 protected:
  Status shapes(const std::vector<TensorDesc>& in, std::vector<TensorDesc>& out) const override {
    Sizes shape = sizes(in[0]);
    if (param_.multiples.size() < shape.size()) {
      return refuse(ERROR_INVALID_TENSOR_DIM_NUM, param_.multiples.size(), " multiples for ", text(in[0]));
    }
    shape.insert(shape.begin(), param_.multiples.size() - shape.size(), 1);
    int64_t widened = 0;  // each of these takes a dimension more while it is repeated
    for (size_t i = 0; i < shape.size(); ++i) {
      widened += shape[i] > 1 && param_.multiples[i] > 1 ? 1 : 0;
      shape[i] *= param_.multiples[i];
    }
    if (rank(in[0]) + widened > MAX_DIM) {
      return refuse(ERROR_INVALID_TENSOR_DIM_NUM, text(in[0]), " has ", rank(in[0]), " dimensions, of which ", widened,
                    " grow; together there can be 8");
    }
    out[0] = with_sizes(in[0], shape);
    return NO_ERROR;
  }

  Kernel kernel() const override {
    return [](const Views& in, const Views& out) {
      Sizes shape = in[0].dims, counts;
      shape.insert(shape.begin(), out[0].dims.size() - shape.size(), 1);
      for (size_t i = 0; i < shape.size(); ++i) counts.push_back(out[0].dims[i] / shape[i]);
      const Box from{in[0].data, 0, dense(shape)};
      for (int64_t copy = 0; copy < product(counts); ++copy) {
        Box to = whole(out[0]);
        int64_t rest = copy;
        for (size_t axis = shape.size(); axis-- > 0;) {
          to.first += rest % counts[axis] * shape[axis] * to.strides[axis];
          rest /= counts[axis];
        }
        copy_box(shape, from, to, size_of(out[0].dtype));
      }
    };
  }

 private:
  RepeatParam param_;
};

using infer::SetValueParam;

class SetValue : public PlainRules {
 public:
  explicit SetValue(const SetValueParam& param) : PlainRules("SetValueOperation", 2, 0), param_(param) {}

 protected:
  Status shapes(const std::vector<TensorDesc>& in, std::vector<TensorDesc>&) const override {
    const Sizes to = sizes(in[0]), from = sizes(in[1]);
    if (to.size() != from.size() || param_.starts.size() != to.size()) {
      return refuse(ERROR_INVALID_TENSOR_DIM_NUM, param_.starts.size(), " starts for ", text(in[0]), " and ",
                    text(in[1]));
    }
    int64_t partial = 0, beside_first = 0;
    for (size_t i = 0; i < to.size(); ++i) {
      const int64_t begin = param_.starts[i], end = param_.ends[i];
      if (begin < 0 || end > to[i] || end - begin != from[i]) {
        return refuse(ERROR_INVALID_TENSOR_DIM, "from ", begin, " to ", end, " on axis ", i, " does not fit ",
                      text(in[0]), " and ", text(in[1]));
      }
      partial += from[i] != to[i] ? 1 : 0;
      beside_first += i > 0 && from[i] != to[i] ? 1 : 0;
    }
    if (partial > 0 && beside_first <= 1) return NO_ERROR;
    return refuse(ERROR_INVALID_TENSOR_DIM, text(in[1]), " must differ from ", text(in[0]),
                  " and beside the first axis in one at most");
  }

  Kernel kernel() const override {
    return [param = param_](const Views& in, const Views&) {
      Box to = whole(in[0]);
      for (size_t i = 0; i < to.strides.size(); ++i) to.first += param.starts[i] * to.strides[i];
      copy_box(in[1].dims, whole(in[1]), to, size_of(in[0].dtype));
    };
  }

 private:
  SetValueParam param_;
};

}  // namespace

Status make_rules(const infer::ConcatParam& param, std::unique_ptr<OpRules>& rules) {
  ATB_SIM_TRY(check_reserved("ConcatOperation", param.rsv));
  rules = std::make_unique<Concat>(param.concatDim);
  return NO_ERROR;
}

Status make_rules(const SplitParam& param, std::unique_ptr<OpRules>& rules) {
  ATB_SIM_TRY(check_reserved("SplitOperation", param.rsv));
  if (param.splitNum != 2 && param.splitNum != 3) {
    return reject(ERROR_INVALID_PARAM, "SplitOperation: splitNum is ", param.splitNum, ", it can be 2 or 3");
  }
  const size_t given = param.splitSizes.size();
  if (given != 0 && (given != static_cast<size_t>(param.splitNum) || param.splitDim < 0)) {
    return reject(ERROR_INVALID_PARAM, "SplitOperation: ", given, " splitSizes with splitNum ", param.splitNum,
                  " and splitDim ", param.splitDim, "; with sizes splitDim counts from the front");
  }
  for (size_t i = 0; i < given; ++i) {
    if (param.splitSizes[i] <= 0)
      return reject(ERROR_INVALID_PARAM, "SplitOperation: a size of splitSizes is not positive");
  }
  rules = std::make_unique<Split>(param);
  return NO_ERROR;
}

Status make_rules(const SliceParam& param, std::unique_ptr<OpRules>& rules) {
  ATB_SIM_TRY(check_reserved("SliceOperation", param.rsv));
  rules = std::make_unique<Slice>(param);
  return NO_ERROR;
}

Status make_rules(const TransposeParam& param, std::unique_ptr<OpRules>& rules) {
  ATB_SIM_TRY(check_reserved("TransposeOperation", param.rsv));
  rules = std::make_unique<Transpose>(param);
  return NO_ERROR;
}

Status make_rules(const RepeatParam& param, std::unique_ptr<OpRules>& rules) {
  ATB_SIM_TRY(check_reserved("RepeatOperation", param.rsv));
  for (int64_t multiple : param.multiples) {
    if (multiple <= 0) return reject(ERROR_INVALID_PARAM, "RepeatOperation: a multiple is not positive");
  }
  if (param.multiples.size() > MAX_DIM) {
    return reject(ERROR_INVALID_PARAM, "RepeatOperation: ", param.multiples.size(), " multiples; there can be 8");
  }
  rules = std::make_unique<Repeat>(param);
  return NO_ERROR;
}

Status make_rules(const SetValueParam& param, std::unique_ptr<OpRules>& rules) {
  ATB_SIM_TRY(check_reserved("SetValueOperation", param.rsv));
  if (param.starts.size() != param.ends.size() || param.starts.size() != param.strides.size()) {
    return reject(ERROR_INVALID_PARAM, "SetValueOperation: starts, ends and strides differ in length");
  }
  for (size_t i = 0; i < param.strides.size(); ++i) {
    if (param.strides[i] != 1) return reject(ERROR_INVALID_PARAM, "SetValueOperation: strides are 1");
  }
  rules = std::make_unique<SetValue>(param);
  return NO_ERROR;
}

}  // namespace atb::sim
