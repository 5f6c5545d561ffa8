// SPDX-License-Identifier: Apache-2.0
#include "single_operation.h"

#include "ops/reject.h"

namespace atb::sim {

Status SingleOperation::schedule(const Descs& in, const Descs& out, const std::vector<const int32_t*>& host,
                                 Schedule& schedule) const {
  ATB_SIM_TRY(rules_->check(in, out));
  std::vector<const int32_t*> read(in.size());
  for (uint32_t index : rules_->host_inputs()) {
    if (host[index] == nullptr) {
      return reject(ERROR_INVALID_PARAM, GetName(), ": input ", index, " has no hostData, which Setup reads");
    }
    read[index] = host[index];
  }
  Launch launch{GetName(), {}, {}, {}};
  ATB_SIM_TRY(rules_->prepare(in, out, read, launch.kernel));
  for (uint32_t i = 0; i < in.size(); ++i) {
    launch.in.push_back({Place::Kind::input, i, in[i], read[i] != nullptr});
  }
  for (uint32_t i = 0; i < out.size(); ++i) launch.out.push_back({Place::Kind::output, i, out[i]});
  schedule.launches.push_back(std::move(launch));
  schedule.workspace = rules_->workspace(out);
  return NO_ERROR;
}

}  // namespace atb::sim
