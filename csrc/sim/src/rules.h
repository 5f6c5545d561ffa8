// SPDX-License-Identifier: Apache-2.0
// Makes the rules of operations from their parameters. Each function refuses parameters that ATB refuses.
#pragma once

#include <memory>

#include "operation_base.h"

namespace atb::sim {

using RulesPtr = std::unique_ptr<OpRules>;

Status make_rules(const infer::ActivationParam& param, RulesPtr& rules);
Status make_rules(const infer::AllGatherParam& param, RulesPtr& rules);
Status make_rules(const infer::AllReduceParam& param, RulesPtr& rules);
Status make_rules(const infer::ConcatParam& param, RulesPtr& rules);
Status make_rules(const infer::ElewiseParam& param, RulesPtr& rules);
Status make_rules(const infer::GatherParam& param, RulesPtr& rules);
Status make_rules(const infer::LayerNormParam& param, RulesPtr& rules);
Status make_rules(const infer::LinearParallelParam& param, RulesPtr& rules);
Status make_rules(const infer::LinearParam& param, RulesPtr& rules);
Status make_rules(const infer::PagedAttentionParam& param, RulesPtr& rules);
Status make_rules(const infer::ReduceParam& param, RulesPtr& rules);
Status make_rules(const infer::RepeatParam& param, RulesPtr& rules);
Status make_rules(const infer::ReshapeAndCacheParam& param, RulesPtr& rules);
Status make_rules(const infer::RmsNormParam& param, RulesPtr& rules);
Status make_rules(const infer::RopeParam& param, RulesPtr& rules);
Status make_rules(const infer::SelfAttentionParam& param, RulesPtr& rules);
Status make_rules(const infer::SetValueParam& param, RulesPtr& rules);
Status make_rules(const infer::SliceParam& param, RulesPtr& rules);
Status make_rules(const infer::SoftmaxParam& param, RulesPtr& rules);
Status make_rules(const infer::SortParam& param, RulesPtr& rules);
Status make_rules(const infer::SplitParam& param, RulesPtr& rules);
Status make_rules(const infer::TransdataParam& param, RulesPtr& rules);
Status make_rules(const infer::TransposeParam& param, RulesPtr& rules);

}  // namespace atb::sim
