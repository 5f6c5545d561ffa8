// SPDX-License-Identifier: Apache-2.0
#include <atb/utils.h>

#include "operation.h"
#include "operation_base.h"

namespace atb {

std::string Utils::GetAtbVersion() { return sim::version(); }

uint64_t Utils::GetTensorSize(const TensorDesc& desc) { return sim::desc_bytes(desc); }
uint64_t Utils::GetTensorSize(const Tensor& tensor) { return GetTensorSize(tensor.desc); }

uint64_t Utils::GetTensorNumel(const TensorDesc& desc) {
  uint64_t count = 1;
  for (uint64_t i = 0; i < desc.shape.dimNum; ++i) count *= static_cast<uint64_t>(desc.shape.dims[i]);
  return count;
}
uint64_t Utils::GetTensorNumel(const Tensor& tensor) { return GetTensorNumel(tensor.desc); }

}  // namespace atb
