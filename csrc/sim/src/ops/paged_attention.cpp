// SPDX-License-Identifier: Apache-2.0
// PagedAttention: queries against a cache in blocks; one query per sequence, or several (calcType SPEC).
#include <atb/atb_infer.h>

#include <algorithm>

#include "ops/attention.h"
#include "ops/columns.h"
#include "ops/kv_cache.h"
#include "ops/numeric.h"
#include "rules.h"

namespace atb::sim {
namespace {

using Param = infer::PagedAttentionParam;
constexpr const char* kName = "PagedAttentionOperation";

struct Plan {
  AttentionShape shape;
  CacheLayout keys, values;
  Param::MaskType mask = Param::UNDEFINED;
  bool spec = false;
  int64_t q_rows = 0, max_blocks = 0;
  Sizes mask_dims;
  bool mask_nz = false;
  std::vector<int64_t> queries;  // per sequence
};

// Empty, or what is wrong with the lengths. It runs at Setup where the host gives them, else in the kernel.
std::string sequences_of(const Plan& plan, const std::vector<int64_t>& contexts, std::vector<Sequence>& out) {
  int64_t row = 0;
  for (size_t b = 0; b < contexts.size(); ++b) {
    const int64_t kv = contexts[b], q = plan.queries[b];
    const std::string who = "sequence " + std::to_string(b) + " has the context length " + std::to_string(kv);
    if (kv < 0 || q < (plan.spec && family() == Family::i310p ? 1 : 0))
      return who + " and " + std::to_string(q) + " queries";
    if (kv > plan.max_blocks * plan.keys.block_size) return who + ", more than its row of the block table reaches";
    if (kv > 0 && q > kv) return who + ", less than its " + std::to_string(q) + " queries";
    if (plan.mask == Param::MASK_TYPE_MASK_FREE && (kv - q) % kMaskBlock != 0) {
      return who + " and " + std::to_string(q) + " queries; MASK_FREE wants a difference that is a multiple of 128";
    }
    if (plan.mask != Param::UNDEFINED && plan.mask != Param::MASK_TYPE_MASK_FREE) {
      const MaskSizes size = mask_sizes(plan.mask_dims, plan.mask_nz);
      const bool by_query = plan.mask == Param::MASK_TYPE_SPEC, per_batch = plan.mask_dims.size() == 3;
      const int64_t rows = !plan.spec ? 1 : by_query ? row + q : per_batch ? q : kv;
      if (size.rows < rows || size.columns < kv) return who + ", the mask " + text(plan.mask_dims) + " is too small";
    }
    out.push_back({.batch = static_cast<int64_t>(b), .q_begin = row, .q_count = q, .kv_count = kv});
    row += q;
  }
  if (row > plan.q_rows) return "qSeqLen adds up to " + std::to_string(row) + ", q has less rows";
  return "";
}

LoadRow cache_reader(const View& cache, const CacheLayout& layout, const View& table, int64_t batch) {
  return [&cache, &layout, &table, batch](int64_t token, int64_t head, float* out) {
    const int64_t at = batch * table.dims[1] + token / layout.block_size;
    const int64_t block = load_integer(table.data, table.dtype, at);
    if (block < 0 || block >= layout.blocks) {
      throw std::runtime_error("PagedAttentionOperation: block " + std::to_string(block) + " of sequence " +
                               std::to_string(batch) + " is outside of the cache");
    }
    for (int64_t c = 0; c < layout.head_dim;) {
      const int64_t channel = head * layout.head_dim + c, run = layout.run(channel, layout.head_dim - c);
      load(cache.data, cache.dtype, layout.offset(block, token % layout.block_size, channel), run, out + c);
      c += run;
    }
  };
}

MaskRow mask_reader(const Plan& plan, const Views& in) {
  if (plan.mask == Param::UNDEFINED) return nullptr;
  return [&plan, &mask = in[5]](const Sequence& s, int64_t head, int64_t row, float* added) {
    const int64_t position = s.kv_count - s.q_count + row;
    if (plan.mask == Param::MASK_TYPE_MASK_FREE) return block_mask(mask, 0, position, s.kv_count, 1.0f, added);
    int64_t plane = 0, at = 0;
    if (plan.spec && plan.mask == Param::MASK_TYPE_NORM && plan.mask_dims.size() == 3) {
      plane = s.batch;
      at = row;
    } else if (plan.spec) {
      at = plan.mask == Param::MASK_TYPE_SPEC ? s.q_begin + row : position;
    } else {
      plane = plan.mask == Param::MASK_TYPE_ALIBI ? s.batch * plan.shape.heads + head : s.batch;
    }
    read_mask(mask, plane, at, 0, s.kv_count, 1.0f, added);
    return s.kv_count;
  };
}

void run(const Plan& plan, const std::vector<Sequence>& sequences, const Views& in, const Views& out) {
  const MaskRow mask = mask_reader(plan, in);
  for (const Sequence& sequence : sequences) {
    if (sequence.kv_count == 0) continue;  // the rows of the output stay as they are
    attend(plan.shape, sequence, in[0], cache_reader(in[1], plan.keys, in[3], sequence.batch),
           cache_reader(in[2], plan.values, in[3], sequence.batch), mask, out[0]);
  }
}

class PagedAttention : public Rules {
 public:
  explicit PagedAttention(const Param& param)
      : Rules(kName, 5u + (param.maskType != Param::UNDEFINED ? 1u : 0u) + (spec(param) ? 1u : 0u), 1),
        param_(param),
        nz_(family() == Family::i310p) {}

  std::vector<uint32_t> host_inputs() const override {
    std::vector<uint32_t> host;
    if (contexts_on_host()) host.push_back(4);
    if (spec(param_)) host.push_back(inputs() - 1);
    return host;
  }
  uint64_t workspace(const std::vector<TensorDesc>& out) const override { return tiled_workspace(out[0]); }

  Status prepare(const std::vector<TensorDesc>& in, const std::vector<TensorDesc>&,
                 const std::vector<const int32_t*>& host, Kernel& kernel) const override {
    Plan plan;
    ATB_SIM_TRY(read_plan(in, plan));
    const int64_t batch = dim(in[4], 0);
    const int32_t* queries = host[in.size() - 1];
    if ((contexts_on_host() && host[4] == nullptr) || (plan.spec && queries == nullptr)) {
      return refuse(ERROR_INVALID_PARAM, "contextLens or qSeqLen has no hostData, which Setup reads");
    }
    plan.queries.assign(static_cast<size_t>(batch), 1);
    if (plan.spec) plan.queries.assign(queries, queries + batch);
    if (!contexts_on_host()) {
      kernel = [plan](const Views& x, const Views& y) {
        std::vector<int64_t> contexts;
        for (int64_t b = 0; b < x[4].count(); ++b) contexts.push_back(load_integer(x[4].data, x[4].dtype, b));
        std::vector<Sequence> sequences;
        const std::string wrong = sequences_of(plan, contexts, sequences);
        if (!wrong.empty()) throw std::runtime_error(std::string(kName) + ": " + wrong);
        run(plan, sequences, x, y);
      };
      return NO_ERROR;
    }
    std::vector<Sequence> sequences;
    const std::string wrong = sequences_of(plan, {host[4], host[4] + batch}, sequences);
    if (!wrong.empty()) return refuse(ERROR_INVALID_PARAM, wrong);
    kernel = [plan, sequences](const Views& x, const Views& y) { run(plan, sequences, x, y); };
    return NO_ERROR;
  }

 protected:
  std::string key() const override {
    if (param_.maskType == Param::UNDEFINED) return spec(param_) ? std::string(kName) + "QLens" : kName;
    return std::string(kName) + (spec(param_) ? "MaskQLens" : "Mask");
  }

  Status shapes(const std::vector<TensorDesc>& in, std::vector<TensorDesc>& out) const override {
    Plan plan;
    ATB_SIM_TRY(read_plan(in, plan));
    out[0] = with_sizes(in[0], {dim(in[0], 0), plan.shape.heads, plan.shape.v_head_dim});
    return NO_ERROR;
  }

  Status limits(const std::vector<TensorDesc>& in, const std::vector<TensorDesc>&) const override {
    Plan plan;
    ATB_SIM_TRY(read_plan(in, plan));
    const int64_t k = plan.shape.head_dim, v = plan.shape.v_head_dim, block = plan.keys.block_size;
    const bool narrow = nz_ || plan.spec;
    if (block % 16 != 0) return refuse(ERROR_INVALID_TENSOR_DIM, "the block size ", block, " is no multiple of 16");
    if (nz_ && k % 16 != 0) return refuse(ERROR_INVALID_TENSOR_DIM, "the head size ", k, " is no multiple of 16");
    if (narrow && (k != v || k > 256 || k * block > 16384)) {
      return refuse(ERROR_INVALID_TENSOR_DIM, "head sizes ", k, " and ", v, " with the block size ", block,
                    ": they must be equal, at most 256, and the product at most 16384");
    }
    if (!narrow && (std::max(k, v) > 576 || !block_fits(k, v, block))) {
      return refuse(ERROR_INVALID_TENSOR_DIM, "head sizes ", k, " and ", v, " with the block size ", block,
                    ": heads may have 576; above 256 a block has at most 128 slots, and heads of one size up to 256 ",
                    "times the block at most 16384, but 256 also multiples of 128 slots");
    }
    if (plan.mask == Param::MASK_TYPE_MASK_FREE && block != kMaskBlock) {
      return refuse(ERROR_INVALID_TENSOR_DIM, "MASK_FREE wants blocks of 128 slots, not ", block);
    }
    if (!nz_ && plan.spec &&
        (dim(in[4], 0) > 2000 || plan.shape.heads > 256 || block > 128 || plan.shape.heads * k > 16384)) {
      return refuse(ERROR_INVALID_TENSOR_DIM,
                    "SPEC takes at most 2000 sequences, 256 heads, blocks of 128 and a width of ", "16384");
    }
    return NO_ERROR;
  }

 private:
  // What the tiling of a 910B asks of heads (of k and v) and blocks.
  static bool block_fits(int64_t k, int64_t v, int64_t block) {
    if (std::max(k, v) > 256) return block <= 128;
    if (k == 256 && v == 256 && block >= 128) return block % 128 == 0;
    return k != v || k * block <= 16384;
  }
  static bool spec(const Param& param) { return param.calcType == Param::CALC_TYPE_SPEC; }
  bool contexts_on_host() const { return !nz_ || param_.maskType == Param::MASK_TYPE_MASK_FREE; }

  Status read_plan(const std::vector<TensorDesc>& in, Plan& plan) const {
    const TensorDesc &q = in[0], &table = in[3], &contexts = in[4];
    plan.spec = spec(param_);
    plan.mask = param_.maskType;
    const int64_t kv_heads = param_.kvHeadNum == 0 ? param_.headNum : param_.kvHeadNum;
    if (rank(q) != 3 || rank(table) != 2 || rank(contexts) != 1) {
      return refuse(ERROR_INVALID_TENSOR_DIM_NUM, "q ", text(q), ", blockTables ", text(table), " and contextLens ",
                    text(contexts), " must have 3, 2 and 1 dimensions");
    }
    ATB_SIM_TRY(cache_layout(kName, in[1], kv_heads, nz_, plan.keys));
    ATB_SIM_TRY(cache_layout(kName, in[2], kv_heads, nz_, plan.values));
    if (dim(q, 1) != param_.headNum || dim(q, 2) != plan.keys.head_dim || plan.keys.blocks != plan.values.blocks ||
        plan.keys.block_size != plan.values.block_size) {
      return refuse(ERROR_INVALID_TENSOR_DIM, "q ", text(q), " with ", param_.headNum, " heads, kCache ", text(in[1]),
                    " and vCache ", text(in[2]), " do not fit together");
    }
    const int64_t batch = dim(contexts, 0);
    if (dim(table, 0) != batch || (!plan.spec && dim(q, 0) != batch)) {
      return refuse(ERROR_INVALID_TENSOR_DIM, "q ", text(q), ", blockTables ", text(table), " and contextLens ",
                    text(contexts), " differ in their number of sequences");
    }
    plan.shape = {.heads = param_.headNum,
                  .kv_heads = kv_heads,
                  .head_dim = plan.keys.head_dim,
                  .v_head_dim = plan.values.head_dim,
                  .scale = param_.qkScale,
                  .half_scores = nz_};
    plan.q_rows = dim(q, 0);
    plan.max_blocks = dim(table, 1);
    if (plan.mask != Param::UNDEFINED) return read_mask_sizes(in, batch, plan);
    if (!plan.spec || lengths_fit(in[5], batch)) return NO_ERROR;
    return refuse(ERROR_INVALID_TENSOR_DIM, "qSeqLen ", text(in[5]), " does not fit ", batch, " sequences");
  }

  Status read_mask_sizes(const std::vector<TensorDesc>& in, int64_t batch, Plan& plan) const {
    const TensorDesc& mask = in[5];
    plan.mask_dims = sizes(mask);
    plan.mask_nz = is_nz(mask);
    const bool per_batch = !nz_ && plan.mask == Param::MASK_TYPE_NORM && rank(mask) == 3;
    const bool alibi = plan.mask == Param::MASK_TYPE_ALIBI;
    const int64_t planes = plan.spec && !per_batch ? 1 : batch * (alibi ? plan.shape.heads : 1);
    const bool rows = plan.mask == Param::MASK_TYPE_SPEC && !plan.mask_nz;  // of values, in either format on 310P
    const int64_t dims = nz_ && !rows ? 4 : plan.spec && !per_batch ? 2 : alibi ? 4 : 3;
    const MaskSizes size = mask_sizes(plan.mask_dims, nz_);
    const bool fits = rank(mask) == dims && elements(mask) == planes * size.rows * size.columns;
    const bool block =
        plan.mask != Param::MASK_TYPE_MASK_FREE || (size.rows == kMaskBlock && size.columns == kMaskBlock);
    if (fits && block && (!plan.spec || lengths_fit(in[6], batch))) return NO_ERROR;
    return refuse(ERROR_INVALID_TENSOR_DIM, "the mask ", text(mask), " does not fit ", batch, " sequences and ",
                  plan.shape.heads, " heads, or qSeqLen the sequences");
  }

  static bool lengths_fit(const TensorDesc& lengths, int64_t batch) {
    return rank(lengths) == 1 && dim(lengths, 0) == batch;
  }

  Param param_;
  bool nz_;  // 310P: NZ caches, masks in NZ, context lengths on the device
};

const char* missing(const Param& p) {
  if (p.quantType != Param::TYPE_QUANT_UNDEFINED || p.hasQuantOffset) return "quantised caches";
  if (p.compressType != Param::COMPRESS_TYPE_UNDEFINED) return "compressed caches";
  if (p.batchRunStatusEnable) return "batchRunStatus";
  if (p.scaleType != Param::SCALE_TYPE_TOR) return "LogN scaling";
  if (p.inputLayout != infer::TYPE_BSND) return "the layout BNSD";
  if (p.mlaVHeadSize != 0) return "latent attention";
  if (p.qScale != 0.0f) return "qScale";
  if (p.maskType < Param::UNDEFINED || p.maskType > Param::MASK_TYPE_MASK_FREE) return "this maskType";
  if (p.maskType == Param::MASK_TYPE_ALIBI && (family() == Family::i310p || p.calcType == Param::CALC_TYPE_SPEC)) {
    return "this use of an ALIBI mask";
  }
  return nullptr;
}

}  // namespace

Status make_rules(const Param& param, std::unique_ptr<OpRules>& rules) {
  ATB_SIM_TRY(check_attention(kName, param, missing(param)));
  const bool spec = param.calcType == Param::CALC_TYPE_SPEC;
  const bool free = param.maskType == Param::MASK_TYPE_MASK_FREE;
  if (spec && param.maskType == Param::UNDEFINED && family() != Family::i310p) {
    return reject(ERROR_INVALID_PARAM, kName, ": calcType SPEC needs a mask of the type NORM or SPEC");
  }
  if (!spec && (param.maskType == Param::MASK_TYPE_SPEC || free)) {
    return reject(ERROR_INVALID_PARAM, kName, ": the masks SPEC and MASK_FREE need calcType SPEC");
  }
  if (free && !version_since(8, 2)) return reject(ERROR_INVALID_PARAM, kName, ": MASK_FREE exists since ATB 8.2");
  if (free && family() != Family::i310p) return reject(ERROR_INVALID_PARAM, kName, ": MASK_FREE exists on 310P only");
  if (spec && param.maskType == Param::MASK_TYPE_NORM && family() == Family::i310p) {
    return reject(ERROR_INVALID_PARAM, kName,
                  ": with calcType SPEC the mask NORM exists on 910B only, 310P takes SPEC or MASK_FREE");
  }
  rules = std::make_unique<PagedAttention>(param);
  return NO_ERROR;
}

}  // namespace atb::sim
