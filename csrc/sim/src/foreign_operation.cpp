// SPDX-License-Identifier: Apache-2.0
#include "foreign_operation.h"

#include "ops/reject.h"

namespace atb::sim {

Status ForeignOperation::infer(const Descs& in, Descs& out) const {
  SVector<TensorDesc> given, made;
  given.resize(in.size());
  for (size_t i = 0; i < in.size(); ++i) given.at(i) = in[i];
  made.resize(out.size());
  ATB_SIM_TRY(operation_->InferShape(given, made));
  for (size_t i = 0; i < out.size(); ++i) {
    ATB_SIM_TRY(check_desc(GetName() + ": output " + std::to_string(i), made.at(i)));
    out[i] = made.at(i);
  }
  return NO_ERROR;
}

Status ForeignOperation::schedule(const Descs& in, const Descs& out, const std::vector<const int32_t*>&,
                                  Schedule& schedule) const {
  Launch launch{GetName(), {}, {}, {}, operation_};
  for (uint32_t i = 0; i < in.size(); ++i) launch.in.push_back({Place::Kind::input, i, in[i]});
  for (uint32_t i = 0; i < out.size(); ++i) launch.out.push_back({Place::Kind::output, i, out[i]});
  schedule.launches.push_back(std::move(launch));
  return NO_ERROR;
}

}  // namespace atb::sim
