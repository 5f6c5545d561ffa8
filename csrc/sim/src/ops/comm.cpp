// SPDX-License-Identifier: Apache-2.0
// AllReduce, AllGather and LinearParallel (LINEAR_ALL_REDUCE) between ranks that are threads of one process or processes
// of one machine. They meet by the communicator they pass, which is of one process, else by commDomain.
#include <atb/atb_infer.h>

#include <algorithm>
#include <cstring>

#include "ops/columns.h"
#include "ops/matmul.h"
#include "ops/numeric.h"
#include "ops/rendezvous.h"
#include "rules.h"
#include "state.h"

namespace atb::sim {
namespace {

struct Place {
  std::string domain;
  int rank = 0, size = 0;
  bool in_processes = false;

  void meet(const View& mine, const std::function<void(const std::vector<View>&)>& work) const {
    (in_processes ? sim::meet_processes : sim::meet)(domain, rank, size, mine, work);
  }
};

template <typename Param>
Place place_of(const Param& param, const char* op) {
  std::string domain = std::string(op) + " domain " + param.commDomain;
  if (param.hcclComm != nullptr) domain = "communicator " + std::to_string(reinterpret_cast<uintptr_t>(param.hcclComm));
  const bool in_processes = param.commMode == infer::COMM_MULTI_PROCESS && param.hcclComm == nullptr;
  return {domain, param.rank, param.rankSize, in_processes && param.rankSize > 1};
}

// lccl's domains are "", "id" and "id:megabytes", id up to 65535.
bool lccl_domain(const std::string& domain) {
  const size_t colon = domain.find(':');
  const std::string id = domain.substr(0, colon);
  const auto digits = [](const std::string& text) { return text.find_first_not_of("0123456789") == std::string::npos; };
  if (!digits(id) || id.size() > 5 || (!id.empty() && std::stoi(id) > 65535)) return false;
  return colon == std::string::npos || (!id.empty() && colon + 1 < domain.size() && digits(domain.substr(colon + 1)));
}

// Checks what ATB needs to open a communicator of its own.
template <typename Param>
Status check_ranks(const char* op, const Param& param) {
  if (param.rankSize < 1 || param.rank < 0 || param.rank >= param.rankSize || param.rankRoot < 0 ||
      param.rankRoot >= param.rankSize) {
    return reject(ERROR_INVALID_PARAM, op, ": rank ", param.rank, " and rankRoot ", param.rankRoot,
                  " must lie within rankSize ", param.rankSize);
  }
  if (param.rankTableFile.empty() && static_cast<uint32_t>(param.rankSize) > devices()) {
    return reject(ERROR_INVALID_PARAM, op, ": rankSize ", param.rankSize, " is more than the ", devices(),
                  " devices that this process sees, and neither hcclComm nor rankTableFile is given");
  }
  return NO_ERROR;
}

template <typename Param>
Status check_place(const char* op, const Param& param, bool overlaps = false) {
  if (param.hcclComm == nullptr) ATB_SIM_TRY(check_ranks(op, param));
  if (overlaps && param.backend == "lcoc") {
    if (family() != Family::a2) return reject(ERROR_INVALID_PARAM, op, ": the simulator has no lcoc on this chip");
    if ((param.rankSize & (param.rankSize - 1)) != 0) {
      return reject(ERROR_INVALID_PARAM, op, ": with lcoc rankSize is a power of two, not ", param.rankSize);
    }
  } else if (param.backend != "hccl" && param.backend != "lccl") {
    return reject(ERROR_INVALID_PARAM, op, ": backend '", param.backend, "' is neither hccl nor lccl");
  }
  if (param.backend == "lccl" && family() != Family::a2) {
    return reject(ERROR_INVALID_PARAM, op, ": lccl does not exist on ", family_name(family()));
  }
  if (param.backend == "lccl" && !lccl_domain(param.commDomain)) {
    return reject(ERROR_INVALID_PARAM, op, ": commDomain '", param.commDomain,
                  "' is no \"id\" or \"id:megabytes\" of lccl");
  }
  if (param.commMode != infer::COMM_MULTI_PROCESS && param.commMode != infer::COMM_MULTI_THREAD) {
    return reject(ERROR_INVALID_PARAM, op, ": commMode ", static_cast<int>(param.commMode), " does not exist");
  }
  if (param.rankSize > 1 && param.commMode == infer::COMM_MULTI_PROCESS && !param.rankTableFile.empty()) {
    return reject(ERROR_INVALID_PARAM, op, ": the simulator's processes are on one machine: it reads no rankTableFile");
  }
  return NO_ERROR;
}

enum class Fold { sum, product, largest, smallest };

template <typename T>
T fold(Fold how, T a, T b) {
  switch (how) {
    case Fold::sum:
      return static_cast<T>(a + b);
    case Fold::product:
      return static_cast<T>(a * b);
    case Fold::largest:
      return std::max(a, b);
    default:
      return std::min(a, b);
  }
}

// Integers wrap around: sums and products are made in unsigned numbers of the same width.
template <typename T, typename Wide>
void fold_integers(Fold how, const std::vector<View>& views, std::vector<std::byte>& out) {
  const auto count = out.size() / sizeof(T);
  auto* result = reinterpret_cast<T*>(out.data());
  for (size_t r = 0; r < views.size(); ++r) {
    const auto* x = reinterpret_cast<const T*>(views[r].data);
    const bool wraps = how == Fold::sum || how == Fold::product;
    for (size_t i = 0; i < count; ++i) {
      if (r == 0) {
        result[i] = x[i];
      } else if (wraps) {
        result[i] = static_cast<T>(fold<Wide>(how, static_cast<Wide>(result[i]), static_cast<Wide>(x[i])));
      } else {
        result[i] = fold<T>(how, result[i], x[i]);
      }
    }
  }
}

// In the order of the ranks and in float32, whoever comes first: the same bits on every rank and in every run.
void fold_floats(Fold how, const std::vector<View>& views, std::vector<float>& total) {
  std::vector<float> x(total.size());
  for (size_t r = 0; r < views.size(); ++r) {
    load(views[r].data, views[r].dtype, 0, static_cast<int64_t>(x.size()), r == 0 ? total.data() : x.data());
    for (size_t i = 0; r > 0 && i < x.size(); ++i) total[i] = fold(how, total[i], x[i]);
  }
}

std::vector<std::byte> reduce(Fold how, const std::vector<View>& views) {
  const View& first = views[0];
  const auto count = static_cast<size_t>(first.count());
  std::vector<std::byte> out(count * size_of(first.dtype));
  switch (first.dtype) {
    case ACL_INT8:
      fold_integers<int8_t, uint32_t>(how, views, out);
      return out;
    case ACL_INT16:
      fold_integers<int16_t, uint32_t>(how, views, out);
      return out;
    case ACL_INT32:
      fold_integers<int32_t, uint32_t>(how, views, out);
      return out;
    case ACL_INT64:
      fold_integers<int64_t, uint64_t>(how, views, out);
      return out;
    default:
      break;
  }
  std::vector<float> total(count);
  fold_floats(how, views, total);
  store(total.data(), first.dtype, 0, first.count(), out.data());
  return out;
}

using infer::AllReduceParam;

bool fold_of(const std::string& type, Fold& how) {
  constexpr std::pair<const char*, Fold> kFolds[] = {
      {"sum", Fold::sum}, {"prod", Fold::product}, {"max", Fold::largest}, {"min", Fold::smallest}};
  for (const auto& [name, fold] : kFolds) {
    if (type == name) {
      how = fold;
      return true;
    }
  }
  return false;
}

class AllReduce : public PlainRules {
 public:
  AllReduce(const Place& place, Fold how, bool lccl)
      : PlainRules("AllReduceOperation", 1, 1), place_(place), how_(how), lccl_(lccl) {}

 protected:
  Status shapes(const std::vector<TensorDesc>& in, std::vector<TensorDesc>& out) const override {
    out[0] = in[0];
    return NO_ERROR;
  }
  Status limits(const std::vector<TensorDesc>& in, const std::vector<TensorDesc>&) const override {
    const aclDataType type = in[0].dtype;
    const bool small = family() == Family::i310p, i16 = type == ACL_INT16;
    bool has = !lccl_ || type != ACL_INT64;
    if (small) has = type != ACL_INT64 && type != ACL_BF16 && (!i16 || how_ == Fold::sum);
    if (!small && how_ == Fold::product) has = has && !i16 && type != ACL_BF16;
    if (has) return NO_ERROR;
    return refuse(ERROR_INVALID_TENSOR_DTYPE, "with ", lccl_ ? "lccl" : "hccl", " there is none of ", text(type),
                  " and this allReduceType on ", family_name(family()));
  }
  Kernel kernel() const override {
    return [place = place_, how = how_](const Views& in, const Views& out) {
      std::vector<std::byte> result;
      place.meet(in[0], [&](const std::vector<View>& views) { result = reduce(how, views); });
      if (!result.empty()) std::memcpy(out[0].data, result.data(), result.size());
    };
  }

 private:
  Place place_;
  Fold how_;
  bool lccl_;
};

class AllGather : public PlainRules {
 public:
  explicit AllGather(const Place& place) : PlainRules("AllGatherOperation", 1, 1), place_(place) {}

 protected:
  Status shapes(const std::vector<TensorDesc>& in, std::vector<TensorDesc>& out) const override {
    Sizes shape = sizes(in[0]);
    if (shape.size() == MAX_DIM)
      return refuse(ERROR_INVALID_TENSOR_DIM_NUM, "there is no dimension left for the ranks");
    shape.insert(shape.begin(), place_.size);
    out[0] = with_sizes(in[0], shape);
    return NO_ERROR;
  }
  Kernel kernel() const override {
    return [place = place_](const Views& in, const Views& out) {
      const size_t bytes = static_cast<size_t>(in[0].count()) * size_of(in[0].dtype);
      place.meet(in[0], [&](const std::vector<View>& views) {
        for (size_t r = 0; r < views.size() && bytes > 0; ++r) {
          std::memcpy(out[0].data + r * bytes, views[r].data, bytes);
        }
      });
    };
  }

 private:
  Place place_;
};

using infer::LinearParallelParam;

// x @ weight, summed over the ranks, and then the residual, a row like a bias, added once.
class LinearParallel : public Rules {
 public:
  LinearParallel(const LinearParallelParam& param, const Place& place)
      : Rules("LinearParallelOperation", param.hasResidual ? 3 : 2, 1), param_(param), place_(place) {}

  Status prepare(const std::vector<TensorDesc>& in, const std::vector<TensorDesc>&, const std::vector<const int32_t*>&,
                 Kernel& kernel) const override {
    MatmulShape shape;
    ATB_SIM_TRY(matmul_shape(name(), in[0], in[1], false, param_.transWeight, shape));
    kernel = [shape, place = place_](const Views& x, const Views& y) {
      std::vector<float> mine = matmul(shape, x[0], x[1]), total(mine.size());
      const View part{reinterpret_cast<std::byte*>(mine.data()), ACL_FLOAT, ACL_FORMAT_ND, matmul_sizes(shape)};
      place.meet(part, [&](const std::vector<View>& views) { fold_floats(Fold::sum, views, total); });
      if (x.size() == 3) {
        add_bias(shape, x[2], total);
      }
      store(total.data(), y[0].dtype, 0, y[0].count(), y[0].data);
    };
    return NO_ERROR;
  }

 protected:
  Status shapes(const std::vector<TensorDesc>& in, std::vector<TensorDesc>& out) const override {
    MatmulShape shape;
    ATB_SIM_TRY(matmul_shape(name(), in[0], in[1], false, param_.transWeight, shape));
    out[0] = with_sizes(in[0], matmul_sizes(shape));
    const bool row = in.size() == 2 || rank(in[2]) == 1 || (rank(in[2]) == 2 && dim(in[2], 0) == 1);
    if (row && (in.size() == 2 || dim(in[2], -1) == shape.n)) return NO_ERROR;
    return refuse(ERROR_INVALID_TENSOR_DIM, "the residual ", text(in[2]), " is no [n] or [1, n] with n = ", shape.n);
  }

 private:
  LinearParallelParam param_;
  Place place_;
};

bool plain(const LinearParallelParam::TwoDimTPInfo& info) {
  const LinearParallelParam::TwoDimTPInfo usual;
  return info.agDim == usual.agDim && info.rsDim == usual.rsDim && info.innerDimIsAg == usual.innerDimIsAg;
}

bool plain(const LinearParallelParam::MoeInfo& info) {
  const LinearParallelParam::MoeInfo usual;
  return info.localExpertNums == usual.localExpertNums && info.epSize == usual.epSize && info.tpSize == usual.tpSize;
}

}  // namespace

Status make_rules(const AllReduceParam& param, std::unique_ptr<OpRules>& rules) {
  constexpr const char* kName = "AllReduceOperation";
  ATB_SIM_TRY(check_reserved(kName, param.rsv));
  ATB_SIM_TRY(check_place(kName, param));
  Fold how = Fold::sum;
  const bool lccl = param.backend == "lccl";
  if (!fold_of(param.allReduceType, how) || (how == Fold::product && (lccl || family() == Family::a5))) {
    return reject(ERROR_INVALID_PARAM, kName, ": allReduceType '", param.allReduceType, "' does not exist with ",
                  param.backend, " on ", family_name(family()));
  }
  if (param.outDataType != ACL_DT_UNDEFINED || static_cast<int>(param.quantType) > 0) {
    return reject(ERROR_INVALID_PARAM, kName, ": the simulator has no quantised AllReduce");
  }
  rules = std::make_unique<AllReduce>(place_of(param, kName), how, lccl);
  return NO_ERROR;
}

Status make_rules(const infer::AllGatherParam& param, std::unique_ptr<OpRules>& rules) {
  constexpr const char* kName = "AllGatherOperation";
  ATB_SIM_TRY(check_reserved(kName, param.rsv));
  ATB_SIM_TRY(check_place(kName, param));
  rules = std::make_unique<AllGather>(place_of(param, kName));
  return NO_ERROR;
}

Status make_rules(const LinearParallelParam& param, std::unique_ptr<OpRules>& rules) {
  constexpr const char* kName = "LinearParallelOperation";
  ATB_SIM_TRY(check_reserved(kName, param.rsv));
  ATB_SIM_TRY(check_reserved(kName, param.twoDimTPInfo.rsv));
  ATB_SIM_TRY(check_place(kName, param, true));
  const int type = param.type, quant = param.quantType;
  if (type != LinearParallelParam::LINEAR_ALL_REDUCE || quant != LinearParallelParam::QUANT_TYPE_UNQUANT ||
      param.keepIntermediate || param.outDataType != ACL_DT_UNDEFINED) {
    return reject(ERROR_INVALID_PARAM, kName, ": the simulator has LINEAR_ALL_REDUCE of floats alone, not type ", type,
                  " with quantType ", quant);
  }
  if (!plain(param.twoDimTPInfo) || !plain(param.moeInfo)) {
    return reject(ERROR_INVALID_PARAM, kName, ": the simulator has neither twoDimTPInfo nor moeInfo");
  }
  rules = std::make_unique<LinearParallel>(param, place_of(param, kName));
  return NO_ERROR;
}

}  // namespace atb::sim
