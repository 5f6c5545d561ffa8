// SPDX-License-Identifier: Apache-2.0
#include <atb/atb_infer.h>

#include <memory>

#include "graph_operation.h"
#include "ops/reject.h"
#include "rules.h"
#include "single_operation.h"
#include "state.h"

namespace atb {

template <typename OpParam>
Status CreateOperation(const OpParam& param, Operation** operation) {
  ATB_SIM_CALL("CreateOperation");
  if (operation == nullptr) return sim::reject(ERROR_INVALID_PARAM, "CreateOperation: operation is null");
  sim::RulesPtr rules;
  ATB_SIM_TRY(sim::make_rules(param, rules));
  *operation = new sim::SingleOperation(std::move(rules));
  return NO_ERROR;
}

template <>
Status CreateOperation(const GraphParam& param, Operation** operation) {
  ATB_SIM_CALL("CreateOperation", param.name);
  if (operation == nullptr) return sim::reject(ERROR_INVALID_PARAM, "CreateOperation: operation is null");
  std::unique_ptr<sim::GraphOperation> graph;
  ATB_SIM_TRY(sim::GraphOperation::make(param, graph));
  *operation = graph.release();
  return NO_ERROR;
}

template Status CreateOperation(const infer::ActivationParam&, Operation**);
template Status CreateOperation(const infer::AllGatherParam&, Operation**);
template Status CreateOperation(const infer::AllReduceParam&, Operation**);
template Status CreateOperation(const infer::ConcatParam&, Operation**);
template Status CreateOperation(const infer::ElewiseParam&, Operation**);
template Status CreateOperation(const infer::GatherParam&, Operation**);
template Status CreateOperation(const infer::LayerNormParam&, Operation**);
template Status CreateOperation(const infer::LinearParallelParam&, Operation**);
template Status CreateOperation(const infer::LinearParam&, Operation**);
template Status CreateOperation(const infer::PagedAttentionParam&, Operation**);
template Status CreateOperation(const infer::ReduceParam&, Operation**);
template Status CreateOperation(const infer::RepeatParam&, Operation**);
template Status CreateOperation(const infer::ReshapeAndCacheParam&, Operation**);
template Status CreateOperation(const infer::RmsNormParam&, Operation**);
template Status CreateOperation(const infer::RopeParam&, Operation**);
template Status CreateOperation(const infer::SelfAttentionParam&, Operation**);
template Status CreateOperation(const infer::SetValueParam&, Operation**);
template Status CreateOperation(const infer::SliceParam&, Operation**);
template Status CreateOperation(const infer::SoftmaxParam&, Operation**);
template Status CreateOperation(const infer::SortParam&, Operation**);
template Status CreateOperation(const infer::SplitParam&, Operation**);
template Status CreateOperation(const infer::TransdataParam&, Operation**);
template Status CreateOperation(const infer::TransposeParam&, Operation**);

}  // namespace atb
