// SPDX-License-Identifier: Apache-2.0
// SelfAttention with calcType PA_ENCODER: attention over packed sequences without a cache.
#include <atb/atb_infer.h>

#include <algorithm>

#include "ops/attention.h"
#include "ops/columns.h"
#include "ops/numeric.h"
#include "rules.h"

namespace atb::sim {
namespace {

using infer::SelfAttentionParam;
constexpr const char* kName = "SelfAttentionOperation";
// A mask of ones and zeros is multiplied by this.
constexpr float kMasked = -3e38f;
constexpr int64_t kMostSequences310p = 2000;

// How the kernel reads its mask.
struct MaskPlan {
  bool present = false;
  bool triangle = false;   // isTriuMask: blocks above the diagonal are not computed
  bool one_block = false;  // the mask is one block of the diagonal
  bool per_head = false;
  bool factor = false;  // ones where masked, not values to add
  bool per_batch = false;
};

int64_t masked_row(const MaskPlan& plan, const View& mask, int64_t heads, const Sequence& sequence, int64_t head,
                   int64_t row, float* added) {
  if (!plan.present) return sequence.kv_count;
  const float factor = plan.factor ? kMasked : 1.0f;
  int64_t plane = plan.per_batch ? sequence.batch : 0;
  if (plan.one_block) return block_mask(mask, plane, row, sequence.kv_count, factor, added);
  if (plan.per_head) plane = plane * heads + head;
  const int64_t past_diagonal = (row / kMaskBlock + 1) * kMaskBlock;
  const int64_t visible = plan.triangle ? std::min(sequence.kv_count, past_diagonal) : sequence.kv_count;
  read_mask(mask, plane, row, 0, visible, factor, added);
  return visible;
}

class SelfAttention : public Rules {
 public:
  explicit SelfAttention(const SelfAttentionParam& param)
      : Rules(kName, param.maskType == SelfAttentionParam::MASK_TYPE_UNDEFINED ? 4 : 5, 1), param_(param) {}

  std::vector<uint32_t> host_inputs() const override { return {inputs() - 1}; }
  uint64_t workspace(const std::vector<TensorDesc>& out) const override { return tiled_workspace(out[0]); }

  Status prepare(const std::vector<TensorDesc>& in, const std::vector<TensorDesc>&,
                 const std::vector<const int32_t*>& host, Kernel& kernel) const override {
    std::vector<Sequence> sequences;
    ATB_SIM_TRY(read_lengths(in, host[in.size() - 1], sequences));
    MaskPlan plan;
    ATB_SIM_TRY(plan_mask(in, sequences, plan));
    kernel = [shape = shape_of(in), sequences, plan](const Views& x, const Views& y) {
      const auto reader = [](const View& from, int64_t heads, int64_t size) {
        return [&from, heads, size](int64_t token, int64_t head, float* row) {
          load(from.data, from.dtype, (token * heads + head) * size, size, row);
        };
      };
      int64_t kv_begin = 0;
      for (const Sequence& sequence : sequences) {
        const auto key = reader(x[1], shape.kv_heads, shape.head_dim);
        const auto value = reader(x[2], shape.kv_heads, shape.v_head_dim);
        attend(
            shape, sequence, x[0], [&](int64_t t, int64_t h, float* row) { key(kv_begin + t, h, row); },
            [&](int64_t t, int64_t h, float* row) { value(kv_begin + t, h, row); },
            [&](const Sequence& s, int64_t head, int64_t row, float* added) {
              return masked_row(plan, x[3], shape.heads, s, head, row, added);
            },
            y[0]);
        kv_begin += sequence.kv_count;
      }
    };
    return NO_ERROR;
  }

 protected:
  // A 310P has no such kernel and runs the usual one.
  bool precise() const { return param_.kernelType == SelfAttentionParam::KERNELTYPE_HIGH_PRECISION; }
  bool masked() const { return param_.maskType != SelfAttentionParam::MASK_TYPE_UNDEFINED; }
  std::string key() const override {
    return masked() ? "SelfAttentionOperationEncoder" : "SelfAttentionOperationEncoderMask0";
  }
  int64_t kv_heads() const { return param_.kvHeadNum == 0 ? param_.headNum : param_.kvHeadNum; }

  AttentionShape shape_of(const std::vector<TensorDesc>& in) const {
    const auto head = [](const TensorDesc& x, int64_t heads) { return rank(x) == 3 ? dim(x, 2) : dim(x, 1) / heads; };
    return {.heads = param_.headNum,
            .kv_heads = kv_heads(),
            .head_dim = head(in[0], param_.headNum),
            .v_head_dim = head(in[2], kv_heads()),
            .scale = param_.qkScale,
            .half_scores = in[0].dtype == ACL_FLOAT16 && (!precise() || family() == Family::i310p)};
  }

  Status shapes(const std::vector<TensorDesc>& in, std::vector<TensorDesc>& out) const override {
    const int64_t dims = rank(in[0]), heads[] = {param_.headNum, kv_heads(), kv_heads()};
    for (size_t i = 0; i < 3; ++i) {
      if (rank(in[i]) != dims || (dims != 2 && dims != 3) || (dims == 2 && family() == Family::i310p)) {
        return refuse(ERROR_INVALID_TENSOR_DIM_NUM, "q, k and v must all have 3 dimensions or, but on 310P, all 2; ",
                      "input ", i, " is ", text(in[i]));
      }
      if (dims == 3 ? dim(in[i], 1) != heads[i] : dim(in[i], 1) % heads[i] != 0) {
        return refuse(ERROR_INVALID_TENSOR_DIM, "input ", i, " ", text(in[i]), " does not hold ", heads[i], " heads");
      }
    }
    const AttentionShape s = shape_of(in);
    const int64_t key_size = dims == 3 ? dim(in[1], 2) : dim(in[1], 1) / kv_heads();
    if (key_size != s.head_dim || dim(in[1], 0) != dim(in[2], 0)) {
      return refuse(ERROR_INVALID_TENSOR_DIM, "q ", text(in[0]), ", k ", text(in[1]), " and v ", text(in[2]),
                    " do not fit together with ", s.heads, " and ", s.kv_heads, " heads");
    }
    const TensorDesc& lengths = in[in.size() - 1];
    if (rank(lengths) != 1 && (rank(lengths) != 2 || dim(lengths, 0) != 2)) {
      return refuse(ERROR_INVALID_TENSOR_DIM, "seqLen is [batch] or [2, batch], not ", text(lengths));
    }
    if (masked()) ATB_SIM_TRY(mask_shape(in[3]));
    out[0] = with_sizes(
        in[0], dims == 3 ? Sizes{dim(in[0], 0), s.heads, s.v_head_dim} : Sizes{dim(in[0], 0), s.heads * s.v_head_dim});
    return NO_ERROR;
  }

  Status limits(const std::vector<TensorDesc>& in, const std::vector<TensorDesc>&) const override {
    const AttentionShape s = shape_of(in);
    const int64_t larger = std::max(s.head_dim, s.v_head_dim);
    if (family() == Family::i310p) {
      if (sizes(in[1]) != sizes(in[2]) || s.head_dim % 16 != 0 || larger > 256) {
        return refuse(ERROR_INVALID_TENSOR_DIM,
                      "on 310P k and v must be alike and the head size a multiple of 16 up to ", "256; it is ",
                      s.head_dim, " and ", s.v_head_dim);
      }
      return NO_ERROR;
    }
    if (larger > (s.head_dim == s.v_head_dim ? 576 : 1024)) {
      return refuse(ERROR_INVALID_TENSOR_DIM, "head size ", s.head_dim, " (of v: ", s.v_head_dim,
                    ") is above the limit");
    }
    return NO_ERROR;
  }

 private:
  bool is(SelfAttentionParam::MaskType type) const { return param_.maskType == type; }

  // The op itself looks at little more than the rank; the rest fails in tiling, see plan_mask().
  Status mask_shape(const TensorDesc& mask) const {
    // On 310P the runner converts masks in rows.
    const int64_t least = family() == Family::i310p ? (is_nz(mask) ? 4 : 3) : 2;
    if (rank(mask) < least || rank(mask) > 4) {
      return refuse(ERROR_INVALID_TENSOR_DIM_NUM, "a mask of the shape ", text(mask), " does not exist on ",
                    family_name(family()));
    }
    const MaskSizes size = mask_sizes(sizes(mask), is_nz(mask));
    if (is(SelfAttentionParam::MASK_TYPE_NORM_COMPRESS) &&
        (size.rows != kMaskBlock || size.columns != kMaskBlock || elements(mask) != kMaskBlock * kMaskBlock)) {
      return refuse(ERROR_INVALID_TENSOR_DIM, "a NORM_COMPRESS mask is one block of 128 x 128, not ", text(mask));
    }
    return NO_ERROR;
  }

  Status read_lengths(const std::vector<TensorDesc>& in, const int32_t* lengths, std::vector<Sequence>& out) const {
    const TensorDesc& desc = in[in.size() - 1];
    if (lengths == nullptr) return refuse(ERROR_INVALID_PARAM, "seqLen has no hostData, which Setup reads");
    const int64_t batch = dim(desc, -1);
    if (family() == Family::i310p && batch > kMostSequences310p) {
      return refuse(ERROR_INVALID_PARAM, batch, " sequences; on 310P there can be ", kMostSequences310p);
    }
    int64_t q_rows = 0, kv_rows = 0;
    for (int64_t b = 0; b < batch; ++b) {
      const int64_t q = lengths[b], kv = rank(desc) == 2 ? lengths[batch + b] : q;
      const int64_t least = family() == Family::i310p ? 1 : 0;
      if (q < least || kv < least) {
        return refuse(ERROR_INVALID_PARAM, "seqLen of sequence ", b, " is ", std::min(q, kv), ", less than ", least);
      }
      if (kv != q && q != 1) {
        return refuse(ERROR_INVALID_PARAM, "sequence ", b, " has ", q, " queries and ", kv,
                      " keys; the kernel wants as many, or one query");
      }
      if (kv != q && param_.isTriuMask != 0) {
        return refuse(ERROR_INVALID_PARAM, "the simulator has no isTriuMask with fewer queries than keys");
      }
      out.push_back({.batch = b, .q_begin = q_rows, .q_count = q, .kv_count = kv});
      q_rows += q;
      kv_rows += kv;
    }
    if (rows_fit(q_rows, dim(in[0], 0)) && rows_fit(kv_rows, dim(in[1], 0))) return NO_ERROR;
    return refuse(ERROR_INVALID_PARAM, "seqLen adds up to ", q_rows, " queries and ", kv_rows, " keys, q is ",
                  text(in[0]), " and k ", text(in[1]));
  }

  // A 310P also takes rows that were padded to its blocks of 16.
  static bool rows_fit(int64_t wanted, int64_t rows) {
    return rows == wanted || (family() == Family::i310p && rows == round_up(wanted, 16));
  }

  Status plan_mask(const std::vector<TensorDesc>& in, const std::vector<Sequence>& sequences, MaskPlan& plan) const {
    plan.present = masked();
    if (!plan.present) return NO_ERROR;
    const TensorDesc& mask = in[3];
    const MaskSizes size = mask_sizes(sizes(mask), is_nz(mask));
    const bool alibi = is(SelfAttentionParam::MASK_TYPE_ALIBI);
    int64_t q = 0, kv = 0;
    for (const Sequence& sequence : sequences) {
      q = std::max(q, sequence.q_count);
      kv = std::max(kv, sequence.kv_count);
    }
    plan.factor = !alibi && (in[0].dtype == ACL_BF16 || (precise() && family() != Family::i310p));
    plan.triangle = param_.isTriuMask != 0 || is(SelfAttentionParam::MASK_TYPE_NORM_COMPRESS);
    plan.one_block = plan.triangle && !alibi && size.rows == kMaskBlock && size.columns == kMaskBlock &&
                     (elements(mask) == kMaskBlock * kMaskBlock ||
                      (rank(mask) == 3 && dim(mask, 0) == static_cast<int64_t>(sequences.size())));
    if (!plan.one_block && (size.rows < q || size.columns < kv)) {
      return refuse(ERROR_INVALID_TENSOR_DIM, "a mask ", text(mask), " is too small for ", q, " queries and ", kv,
                    " keys");
    }
    const auto batch = static_cast<int64_t>(sequences.size());
    const int64_t planes = elements(mask) / (size.rows * size.columns);
    plan.per_head = alibi;
    plan.per_batch = planes > (alibi ? param_.headNum : 1);
    const int64_t expected = (plan.per_head ? param_.headNum : 1) * (plan.per_batch ? batch : 1);
    if (planes != expected || (!alibi && rank(mask) == 4 && !is_nz(mask) && family() != Family::i310p)) {
      return refuse(ERROR_INVALID_TENSOR_DIM, "a mask ", text(mask), " does not fit ", batch, " sequences and ",
                    param_.headNum, " heads");
    }
    return NO_ERROR;
  }

  SelfAttentionParam param_;
};

// What exists in ATB and is not simulated.
const char* missing(const SelfAttentionParam& p) {
  if (p.calcType != SelfAttentionParam::PA_ENCODER) return "a calcType other than PA_ENCODER";
  if (p.quantType != SelfAttentionParam::TYPE_QUANT_UNQUANT) return "quantised attention";
  if (p.batchRunStatusEnable) return "batchRunStatus";
  if (p.clampType != SelfAttentionParam::CLAMP_TYPE_UNDEFINED) return "clamping";
  if (p.scaleType != SelfAttentionParam::SCALE_TYPE_TOR) return "LogN scaling";
  if (p.inputLayout != infer::TYPE_BSND) return "the layout BNSD";
  if (p.mlaVHeadSize != 0) return "latent attention";
  if (p.cacheType != SelfAttentionParam::CACHE_TYPE_NORM || p.windowSize != 0) return "sliding windows";
  if (p.kernelType != SelfAttentionParam::KERNELTYPE_DEFAULT &&
      p.kernelType != SelfAttentionParam::KERNELTYPE_HIGH_PRECISION) {
    return "this kernelType";
  }
  const int mask = p.maskType;
  if (mask < 0 || mask > SelfAttentionParam::MASK_TYPE_NORM_COMPRESS) {
    return "a maskType other than NORM, ALIBI and NORM_COMPRESS";
  }
  return nullptr;
}

}  // namespace

Status make_rules(const SelfAttentionParam& param, std::unique_ptr<OpRules>& rules) {
  ATB_SIM_TRY(check_attention(kName, param, missing(param)));
  if (param.kvcacheCfg != SelfAttentionParam::K_CACHE_V_CACHE) {
    return reject(ERROR_INVALID_PARAM, kName, ": PA_ENCODER has no cache to bypass");
  }
  if (param.isTriuMask > 1 || (param.isTriuMask == 1 && param.maskType == SelfAttentionParam::MASK_TYPE_UNDEFINED)) {
    return reject(ERROR_INVALID_PARAM, kName, ": isTriuMask ", param.isTriuMask, " needs a mask and is 0 or 1");
  }
  const bool compressed = param.maskType == SelfAttentionParam::MASK_TYPE_NORM_COMPRESS;
  if (compressed && param.isTriuMask != 1 && family() != Family::i310p) {
    return reject(ERROR_INVALID_PARAM, kName, ": NORM_COMPRESS needs isTriuMask 1");
  }
  rules = std::make_unique<SelfAttention>(param);
  return NO_ERROR;
}

}  // namespace atb::sim
