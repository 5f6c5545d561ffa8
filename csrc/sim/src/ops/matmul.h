// SPDX-License-Identifier: Apache-2.0
// x @ weight in float32, for Linear and LinearParallel.
#pragma once

#include <vector>

#include "ops/shapes.h"

namespace atb::sim {

struct MatmulShape {
  int64_t batch = 1, m = 0, n = 0, k = 0;
  int64_t weight_batch = 1;  // batch, or 1 for a weight of two dimensions
  bool x_is_3d = false;
  bool transpose_a = false;  // x is [k, m]
  bool transpose_b = false;  // weight is [n, k]
  bool nz = false;           // weight lies in fractals of 16 columns
};

// Reads the sizes from the descriptions and rejects what does not multiply.
Status matmul_shape(const std::string& op, const TensorDesc& x, const TensorDesc& weight, bool transpose_a,
                    bool transpose_b, MatmulShape& shape);
// [m, n] or [batch, m, n].
Sizes matmul_sizes(const MatmulShape& shape);
// [batch * m * n] products, every one a sum over k in the same order.
std::vector<float> matmul(const MatmulShape& shape, const View& x, const View& weight);

// A bias is [n], [1, n] or [batch of the weight, n].
Status check_bias(const std::string& op, const MatmulShape& shape, const TensorDesc& bias);
void add_bias(const MatmulShape& shape, const View& bias, std::vector<float>& out);

}  // namespace atb::sim
