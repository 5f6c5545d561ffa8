// SPDX-License-Identifier: Apache-2.0
#include <atb/atb_infer.h>

#include <algorithm>
#include <cmath>

#include "ops/columns.h"
#include "ops/numeric.h"
#include "ops/quantize.h"
#include "ops/shapes.h"
#include "rules.h"

namespace atb::sim {
namespace {

using infer::ElewiseParam;
constexpr const char* kName = "ElewiseOperation";

// Names by number; those without one are quantising types.
constexpr const char* kSuffixes[] = {nullptr,       "CAST", "MULS",  "COS",     "SIN",         "NEG",        nullptr,
                                     "LOGICAL_NOT", "ADD",  "MUL",   "REALDIV", "LOGICAL_AND", "LOGICAL_OR", "LESS",
                                     "GREATER",     "SUB",  "EQUAL", nullptr,   nullptr,       nullptr,      "TANH"};

bool binary(ElewiseParam::ElewiseType type) {
  return type >= ElewiseParam::ELEWISE_ADD && type <= ElewiseParam::ELEWISE_EQUAL;
}
bool compares(ElewiseParam::ElewiseType type) {
  return type == ElewiseParam::ELEWISE_LESS || type == ElewiseParam::ELEWISE_GREATER ||
         type == ElewiseParam::ELEWISE_EQUAL;
}
bool is_float(aclDataType dtype) { return dtype == ACL_FLOAT || dtype == ACL_FLOAT16 || dtype == ACL_BF16; }

float unary(const ElewiseParam& param, float x) {
  switch (param.elewiseType) {
    case ElewiseParam::ELEWISE_MULS:
      return x * param.mulsParam.varAttr;
    case ElewiseParam::ELEWISE_COS:
      return std::cos(x);
    case ElewiseParam::ELEWISE_SIN:
      return std::sin(x);
    case ElewiseParam::ELEWISE_NEG:
      return -x;
    case ElewiseParam::ELEWISE_TANH:
      return std::tanh(x);
    default:
      return x;  // CAST
  }
}

template <typename T>
T arithmetic(ElewiseParam::ElewiseType type, T a, T b) {
  switch (type) {
    case ElewiseParam::ELEWISE_ADD:
      return a + b;
    case ElewiseParam::ELEWISE_SUB:
      return a - b;
    case ElewiseParam::ELEWISE_MUL:
      return a * b;
    case ElewiseParam::ELEWISE_REALDIV:
      return a / b;
    case ElewiseParam::ELEWISE_LOGICAL_AND:
      return static_cast<T>(a != 0 && b != 0);
    case ElewiseParam::ELEWISE_LOGICAL_OR:
      return static_cast<T>(a != 0 || b != 0);
    case ElewiseParam::ELEWISE_LESS:
      return static_cast<T>(a < b);
    case ElewiseParam::ELEWISE_GREATER:
      return static_cast<T>(a > b);
    default:
      return static_cast<T>(a == b);
  }
}

// All elements of a tensor as T, float or unsigned integer (which wraps around, as int32 and int64 do on the device).
std::vector<float> floats(const View& x) {
  std::vector<float> values(static_cast<size_t>(x.count()));
  load(x.data, x.dtype, 0, x.count(), values.data());
  return values;
}

std::vector<int64_t> integers(const View& x) {
  std::vector<int64_t> values(static_cast<size_t>(x.count()));
  for (int64_t i = 0; i < x.count(); ++i) values[static_cast<size_t>(i)] = load_integer(x.data, x.dtype, i);
  return values;
}

void store_integer(int64_t value, aclDataType dtype, int64_t index, std::byte* data) {
  const size_t bytes = size_of(dtype);  // little endian: the low bytes come first
  std::memcpy(data + static_cast<size_t>(index) * bytes, &value, bytes);
}

// Where element i of the broadcast result lies in an input.
class Broadcast {
 public:
  Broadcast(const Sizes& from, const Sizes& to) : to_(to), stride_(to.size(), 0) {
    int64_t step = 1;
    for (size_t back = 1; back <= from.size(); ++back) {
      const int64_t size = from[from.size() - back];
      if (size != 1) stride_[to.size() - back] = step;
      step *= size;
    }
  }
  size_t operator()(int64_t i) const {
    int64_t at = 0;
    for (size_t axis = to_.size(); axis-- > 0;) {
      at += i % to_[axis] * stride_[axis];
      i /= to_[axis];
    }
    return static_cast<size_t>(at);
  }

 private:
  Sizes to_, stride_;
};

template <typename T, typename Store>
void combine(ElewiseParam::ElewiseType type, const std::vector<T>& a, const std::vector<T>& b, const Views& in,
             const View& out, const Store& store_at) {
  const bool plain = in[0].dims == out.dims && in[1].dims == out.dims;
  const Broadcast left(in[0].dims, out.dims), right(in[1].dims, out.dims);
  for (int64_t i = 0; i < out.count(); ++i) {
    const T x = a[plain ? static_cast<size_t>(i) : left(i)], y = b[plain ? static_cast<size_t>(i) : right(i)];
    store_at(i, arithmetic<T>(type, x, y));
  }
}

void run_binary(ElewiseParam::ElewiseType type, const Views& in, const View& out) {
  if (is_float(in[0].dtype)) {
    std::vector<float> results(static_cast<size_t>(out.count()));
    combine<float>(type, floats(in[0]), floats(in[1]), in, out,
                   [&](int64_t i, float value) { results[static_cast<size_t>(i)] = value; });
    if (!compares(type)) return store(results.data(), out.dtype, 0, out.count(), out.data);
    for (int64_t i = 0; i < out.count(); ++i) {
      store_integer(static_cast<int64_t>(results[static_cast<size_t>(i)]), out.dtype, i, out.data);
    }
    return;
  }
  const std::vector<int64_t> a = integers(in[0]), b = integers(in[1]);
  if (compares(type)) {
    return combine<int64_t>(type, a, b, in, out,
                            [&](int64_t i, int64_t value) { store_integer(value, out.dtype, i, out.data); });
  }
  combine<uint64_t>(type, {a.begin(), a.end()}, {b.begin(), b.end()}, in, out, [&](int64_t i, uint64_t value) {
    store_integer(static_cast<int64_t>(value), out.dtype, i, out.data);
  });
}

void run_unary(const ElewiseParam& param, const View& x, const View& y) {
  if (!is_float(x.dtype)) {  // CAST between integers, LOGICAL_NOT
    const bool negate = param.elewiseType == ElewiseParam::ELEWISE_LOGICAL_NOT;
    for (int64_t i = 0; i < x.count(); ++i) {
      const int64_t value = load_integer(x.data, x.dtype, i);
      store_integer(negate ? value == 0 : value, y.dtype, i, y.data);
    }
    return;
  }
  std::vector<float> values = floats(x);
  for (float& value : values) value = unary(param, value);
  store(values.data(), y.dtype, 0, y.count(), y.data);
}

class Elewise : public PlainRules {
 public:
  explicit Elewise(const ElewiseParam& param)
      : PlainRules(kName, binary(param.elewiseType) ? 2 : 1, 1), param_(param) {}

 protected:
  std::string key() const override { return std::string(kName) + kSuffixes[param_.elewiseType]; }

  Status shapes(const std::vector<TensorDesc>& in, std::vector<TensorDesc>& out) const override {
    out[0] = in[0];
    if (param_.elewiseType == ElewiseParam::ELEWISE_CAST) out[0].dtype = cast_type(in[0].dtype);
    if (in.size() == 1) return NO_ERROR;
    Sizes shape(static_cast<size_t>(std::max(rank(in[0]), rank(in[1]))), 1);
    for (const TensorDesc& x : in) {
      for (size_t back = 1; back <= static_cast<size_t>(rank(x)); ++back) {
        int64_t& size = shape[shape.size() - back];
        const int64_t mine = dim(x, -static_cast<int64_t>(back));
        if (size != mine && size != 1 && mine != 1) {
          return refuse(ERROR_INVALID_TENSOR_DIM, text(in[0]), " and ", text(in[1]), " do not broadcast");
        }
        size = size == 1 ? mine : size;
      }
    }
    out[0] = with_sizes(in[0], shape);
    if (compares(param_.elewiseType)) out[0].dtype = ACL_INT8;
    return NO_ERROR;
  }

  Kernel kernel() const override {
    return [param = param_](const Views& in, const Views& out) {
      if (in.size() == 2) return run_binary(param.elewiseType, in, out[0]);
      run_unary(param, in[0], out[0]);
    };
  }

 private:
  aclDataType cast_type(aclDataType from) const {
    if (param_.outTensorType != ACL_DT_UNDEFINED) return param_.outTensorType;
    return from == ACL_FLOAT ? ACL_FLOAT16 : from == ACL_FLOAT16 ? ACL_FLOAT : from;
  }

  ElewiseParam param_;
};

}  // namespace

Status make_rules(const ElewiseParam& param, std::unique_ptr<OpRules>& rules) {
  ATB_SIM_TRY(check_reserved(kName, param.rsv));
  ATB_SIM_TRY(check_reserved(kName, param.quantParam.rsv));
  ATB_SIM_TRY(check_reserved(kName, param.mulsParam.rsv));
  const int type = param.elewiseType;
  if (type <= 0 || type > ElewiseParam::ELEWISE_TANH) {
    return reject(ERROR_INVALID_PARAM, kName, ": elewiseType ", type, " does not exist");
  }
  if (kSuffixes[type] == nullptr) {
    return make_quantizer(param, rules);
  }
  rules = std::make_unique<Elewise>(param);
  return NO_ERROR;
}

}  // namespace atb::sim
