// SPDX-License-Identifier: Apache-2.0
// ReshapeAndCache: new keys and values go to their slots of the paged caches.
#include "ops/kv_cache.h"

#include <atb/atb_infer.h>

#include <cstring>

#include "ops/columns.h"
#include "ops/numeric.h"
#include "rules.h"

namespace atb::sim {

Status cache_layout(const std::string& op, const TensorDesc& cache, int64_t heads, bool nz, CacheLayout& layout) {
  if (rank(cache) != 4) {
    return reject(ERROR_INVALID_TENSOR_DIM_NUM, op, ": a cache has 4 dimensions, not the shape ", text(cache));
  }
  layout.blocks = dim(cache, 0);
  layout.heads = heads;
  if (!nz) {
    layout.block_size = dim(cache, 1);
    layout.head_dim = dim(cache, 3);
    if (dim(cache, 2) == heads) return NO_ERROR;
    return reject(ERROR_INVALID_TENSOR_DIM, op, ": the cache ", text(cache), " does not hold ", heads, " heads");
  }
  layout.block_size = dim(cache, 2);
  layout.lanes = dim(cache, 3);
  layout.head_dim = dim(cache, 1) * layout.lanes / heads;
  const int64_t lanes = size_of(cache.dtype) == 1 ? 32 : 16;
  if (layout.lanes == lanes && dim(cache, 1) * lanes % heads == 0) return NO_ERROR;
  return reject(ERROR_INVALID_TENSOR_DIM, op, ": an NZ cache is [blocks, heads * head size / ", lanes, ", block size, ",
                lanes, "], not ", text(cache), " with ", heads, " heads");
}

namespace {

using infer::ReshapeAndCacheParam;
constexpr const char* kName = "ReshapeAndCacheOperation";
constexpr int64_t kHeadStep310p = 16;

void write_rows(const View& rows, const View& slots, const CacheLayout& layout, const View& cache) {
  const size_t bytes = size_of(cache.dtype);
  for (int64_t t = 0; t < slots.count(); ++t) {
    const int64_t slot = load_integer(slots.data, slots.dtype, t);
    if (slot < 0) continue;
    if (slot >= layout.blocks * layout.block_size) {
      throw std::runtime_error("ReshapeAndCacheOperation: slot " + std::to_string(slot) + " of token " +
                               std::to_string(t) + " is outside of the cache");
    }
    const int64_t block = slot / layout.block_size, place = slot % layout.block_size;
    for (int64_t c = 0; c < layout.width();) {
      const int64_t run = layout.run(c, layout.width() - c);
      std::memcpy(cache.data + static_cast<size_t>(layout.offset(block, place, c)) * bytes,
                  rows.data + static_cast<size_t>(t * layout.width() + c) * bytes, static_cast<size_t>(run) * bytes);
      c += run;
    }
  }
}

class ReshapeAndCache : public Rules {
 public:
  explicit ReshapeAndCache(const ReshapeAndCacheParam& param)
      : Rules(kName, param.kvCacheCfg == ReshapeAndCacheParam::K_CACHE_V_BYPASS ? 3 : 5,
              param.kvCacheCfg == ReshapeAndCacheParam::K_CACHE_V_BYPASS ? 1 : 2),
        nz_(param.kvCacheCfg == ReshapeAndCacheParam::K_CACHE_V_CACHE_NZ || family() == Family::i310p) {}

  std::vector<std::pair<uint32_t, uint32_t>> in_place() const override {
    if (outputs() == 1) return {{0, 1}};
    return {{0, 2}, {1, 3}};
  }

  Status prepare(const std::vector<TensorDesc>& in, const std::vector<TensorDesc>&, const std::vector<const int32_t*>&,
                 Kernel& kernel) const override {
    std::vector<CacheLayout> layouts;
    ATB_SIM_TRY(read_layouts(in, layouts));
    kernel = [layouts](const Views& x, const Views& caches) {
      for (size_t i = 0; i < layouts.size(); ++i) write_rows(x[i], x.back(), layouts[i], caches[i]);
    };
    return NO_ERROR;
  }

 protected:
  std::string key() const override {
    if (outputs() == 1) return "ReshapeAndCacheOperationSISO";
    if (family() == Family::i310p) return "ReshapeAndCacheOperationAtlas300";
    return nz_ ? "ReshapeAndCacheOperationAtlas800A2NZ" : kName;
  }

  Status shapes(const std::vector<TensorDesc>& in, std::vector<TensorDesc>& out) const override {
    std::vector<CacheLayout> layouts;
    ATB_SIM_TRY(read_layouts(in, layouts));
    for (size_t i = 0; i < out.size(); ++i) out[i] = in[out.size() + i];
    return NO_ERROR;
  }

  Status limits(const std::vector<TensorDesc>& in, const std::vector<TensorDesc>&) const override {
    if (outputs() == 2 && dim(in[0], 1) != dim(in[1], 1)) {
      return refuse(ERROR_INVALID_TENSOR_DIM, "key ", text(in[0]), " and value ", text(in[1]),
                    " must have as many heads");
    }
    if (family() != Family::i310p) return NO_ERROR;
    const int64_t key = dim(in[0], 2), value = dim(in[1], 2);
    if (key == value && key % kHeadStep310p == 0) return NO_ERROR;
    return refuse(ERROR_INVALID_TENSOR_DIM, "on 310P the head sizes of key and value, ", key, " and ", value,
                  ", must be equal and a multiple of ", kHeadStep310p);
  }

 private:
  Status read_layouts(const std::vector<TensorDesc>& in, std::vector<CacheLayout>& layouts) const {
    const TensorDesc& slots = in.back();
    for (size_t i = 0; i < outputs(); ++i) {
      const TensorDesc &rows = in[i], &cache = in[outputs() + i];
      if (rank(rows) != 3 || rank(slots) != 1 || dim(rows, 0) != dim(slots, 0)) {
        return refuse(ERROR_INVALID_TENSOR_DIM, "input ", i, " is [tokens, heads, head size] and slots [tokens], not ",
                      text(rows), " and ", text(slots));
      }
      CacheLayout layout;
      ATB_SIM_TRY(cache_layout(kName, cache, dim(rows, 1), nz_, layout));
      if (layout.head_dim != dim(rows, 2)) {
        return refuse(ERROR_INVALID_TENSOR_DIM, "input ", i, " ", text(rows), " does not fit the cache ", text(cache));
      }
      if (nz_ && layout.block_size % 16 != 0) {
        return refuse(ERROR_INVALID_TENSOR_DIM, "the block size ", layout.block_size,
                      " of an NZ cache is no multiple of 16");
      }
      if (!layouts.empty() && (layout.blocks != layouts[0].blocks || layout.block_size != layouts[0].block_size)) {
        return refuse(ERROR_INVALID_TENSOR_DIM, "the caches differ in their blocks: ", text(in[outputs()]), " and ",
                      text(cache));
      }
      layouts.push_back(layout);
    }
    return NO_ERROR;
  }

  bool nz_;
};

}  // namespace

Status make_rules(const ReshapeAndCacheParam& param, std::unique_ptr<OpRules>& rules) {
  ATB_SIM_TRY(check_reserved(kName, param.rsv));
  if (param.compressType != ReshapeAndCacheParam::COMPRESS_TYPE_UNDEFINED) {
    return reject(ERROR_INVALID_PARAM, kName, ": the simulator has no compressed caches");
  }
  const int config = param.kvCacheCfg;
  if (config < ReshapeAndCacheParam::K_CACHE_V_CACHE || config > ReshapeAndCacheParam::K_CACHE_V_CACHE_NZ) {
    return reject(ERROR_INVALID_PARAM, kName, ": kvCacheCfg ", config, " does not exist");
  }
  if (config != ReshapeAndCacheParam::K_CACHE_V_CACHE && family() == Family::i310p) {
    return reject(ERROR_INVALID_PARAM, kName, ": kvCacheCfg ", config, " does not exist on 310P");
  }
  rules = std::make_unique<ReshapeAndCache>(param);
  return NO_ERROR;
}

}  // namespace atb::sim
