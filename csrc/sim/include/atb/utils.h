// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "atb/types.h"

namespace atb {

class Utils {
 public:
  static std::string GetAtbVersion();
  // Bytes and elements of a tensor.
  static uint64_t GetTensorSize(const Tensor& tensor);
  static uint64_t GetTensorSize(const TensorDesc& tensorDesc);
  static uint64_t GetTensorNumel(const Tensor& tensor);
  static uint64_t GetTensorNumel(const TensorDesc& tensorDesc);
};

}  // namespace atb
