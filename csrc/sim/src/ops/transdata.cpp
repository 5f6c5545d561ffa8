// SPDX-License-Identifier: Apache-2.0
// Transdata: between ND [batch, rows, columns] and FRACTAL_NZ [batch, columns / lanes, rows, lanes].
#include <atb/atb_infer.h>

#include <cstring>

#include "ops/numeric.h"
#include "ops/shapes.h"
#include "rules.h"

namespace atb::sim {
namespace {

using infer::TransdataParam;

int64_t lanes_of(aclDataType dtype) { return size_of(dtype) == 1 ? 32 : 16; }

// Copies the [rows, columns] that ND has; what NZ has beyond is filled with zeros.
void convert(const View& nd, const View& nz, bool to_nz) {
  const size_t bytes = size_of(nd.dtype);
  const int64_t batch = nz.dims[0], blocks = nz.dims[1], padded = nz.dims[2], lanes = nz.dims[3];
  const int64_t rows = nd.dims[nd.dims.size() - 2], columns = nd.dims.back();
  if (to_nz && nz.count() > 0) std::memset(nz.data, 0, static_cast<size_t>(nz.count()) * bytes);
  for (int64_t b = 0; b < batch; ++b) {
    for (int64_t r = 0; r < rows; ++r) {
      for (int64_t c = 0; c < columns; ++c) {
        std::byte* flat = nd.data + static_cast<size_t>((b * rows + r) * columns + c) * bytes;
        const int64_t at = ((b * blocks + c / lanes) * padded + r) * lanes + c % lanes;
        std::byte* fractal = nz.data + static_cast<size_t>(at) * bytes;
        std::memcpy(to_nz ? fractal : flat, to_nz ? flat : fractal, bytes);
      }
    }
  }
}

class Transdata : public PlainRules {
 public:
  explicit Transdata(const TransdataParam& param) : PlainRules("TransdataOperation", 1, 1), param_(param) {}

 protected:
  bool to_nz() const { return param_.transdataType == TransdataParam::ND_TO_FRACTAL_NZ; }
  std::string key() const override { return name() + (to_nz() ? "ToNz" : "ToNd"); }

  Status shapes(const std::vector<TensorDesc>& in, std::vector<TensorDesc>& out) const override {
    const TensorDesc& x = in[0];
    const int64_t lanes = lanes_of(x.dtype);
    if (to_nz()) {
      if (rank(x) != 2 && rank(x) != 3) return refuse(ERROR_INVALID_TENSOR_DIM_NUM, text(x), " is neither 2-D nor 3-D");
      const int64_t batch = rank(x) == 3 ? dim(x, 0) : 1, columns = round_up(dim(x, -1), lanes);
      out[0] = describe(x.dtype, {batch, columns / lanes, round_up(dim(x, -2), 16), lanes}, ACL_FORMAT_FRACTAL_NZ);
      return NO_ERROR;
    }
    if (rank(x) != 4 || dim(x, 3) != lanes) {
      return refuse(ERROR_INVALID_TENSOR_DIM, text(x), " is no [batch, columns / ", lanes, ", rows, ", lanes, "]");
    }
    const int64_t rows = param_.outCrops[0], columns = param_.outCrops[1];
    if (rows <= 0 || round_up(rows, 16) != dim(x, 2) || columns <= 0 || round_up(columns, lanes) != dim(x, 1) * lanes) {
      return refuse(ERROR_INVALID_TENSOR_DIM, "outCrops ", rows, " x ", columns, " do not fit ", text(x));
    }
    out[0] = describe(x.dtype, {dim(x, 0), rows, columns});
    return NO_ERROR;
  }

  Kernel kernel() const override {
    return [to_nz = to_nz()](const Views& in, const Views& out) {
      if (to_nz) {
        convert(in[0], out[0], true);
      } else {
        convert(out[0], in[0], false);
      }
    };
  }

 private:
  TransdataParam param_;
};

}  // namespace

Status make_rules(const TransdataParam& param, std::unique_ptr<OpRules>& rules) {
  ATB_SIM_TRY(check_reserved("TransdataOperation", param.rsv));
  const int type = param.transdataType;
  if (type != TransdataParam::ND_TO_FRACTAL_NZ && type != TransdataParam::FRACTAL_NZ_TO_ND) {
    return reject(ERROR_INVALID_PARAM, "TransdataOperation: transdataType ", type, " does not exist");
  }
  if (param.outCrops.size() != 2) {
    return reject(ERROR_INVALID_PARAM, "TransdataOperation: outCrops holds two sizes, not ", param.outCrops.size());
  }
  rules = std::make_unique<Transdata>(param);
  return NO_ERROR;
}

}  // namespace atb::sim
