// SPDX-License-Identifier: Apache-2.0
#include "ops/matmul.h"

#include <algorithm>

#include "ops/numeric.h"
#include "ops/simd.h"

namespace atb::sim {
namespace {

constexpr int64_t kFractal =
    16;  // rows of an NZ block, columns of one of two-byte elements, and rows converted at a time

// Reads the weight's batch, rows and columns as a matrix, whatever its layout.
Status weight_sizes(const std::string& op, const TensorDesc& weight, Sizes& out) {
  const int64_t dims = rank(weight), lanes = weight.dtype == ACL_INT8 ? 2 * kFractal : kFractal;
  if (dims == 4 && is_nz(weight)) {
    if (dim(weight, 3) != lanes || dim(weight, 2) % kFractal != 0) {
      return reject(ERROR_INVALID_TENSOR_DIM, op, ": an NZ weight is [batch, columns / ", lanes,
                    ", rows (a multiple of 16), ", lanes, "], not ", text(weight));
    }
    out = {dim(weight, 0), dim(weight, 2), dim(weight, 1) * dim(weight, 3)};
    return NO_ERROR;
  }
  if (dims != 2 && dims != 3) {
    return reject(ERROR_INVALID_TENSOR_DIM_NUM, op, ": the weight's shape ", text(weight), " has ", dims,
                  " dimensions");
  }
  out = {dims == 3 ? dim(weight, 0) : 1, dim(weight, -2), dim(weight, -1)};
  if (is_nz(weight) && (out[1] % kFractal != 0 || out[2] % kFractal != 0)) {
    return reject(ERROR_INVALID_TENSOR_DIM, op, ": an NZ weight has multiples of 16 as sizes, not ", text(weight));
  }
  return NO_ERROR;
}

// x as [batch * m, k] in float32.
std::vector<float> rows_of(const MatmulShape& s, const View& x) {
  std::vector<float> rows(static_cast<size_t>(s.batch * s.m * s.k));
  load(x.data, x.dtype, 0, s.batch * s.m * s.k, rows.data());
  if (!s.transpose_a) return rows;
  std::vector<float> turned(rows.size());
  for (int64_t b = 0; b < s.batch; ++b) {
    for (int64_t i = 0; i < s.k; ++i) {
      for (int64_t j = 0; j < s.m; ++j) {
        turned[static_cast<size_t>((b * s.m + j) * s.k + i)] = rows[static_cast<size_t>((b * s.k + i) * s.m + j)];
      }
    }
  }
  return turned;
}

// Columns first .. first + count (count <= 16) of the product's weight, each as a row of k floats.
void weight_rows(const MatmulShape& s, const View& w, int64_t batch, int64_t first, int64_t count, float* out) {
  const int64_t base = batch * s.n * s.k;
  if (s.transpose_b && !s.nz) return load(w.data, w.dtype, base + first * s.k, count * s.k, out);
  if (s.transpose_b) {
    for (int64_t block = 0; block < s.k / kFractal; ++block) {
      for (int64_t r = 0; r < count; ++r) {
        const int64_t at = base + (block * s.n + first + r) * kFractal;
        load(w.data, w.dtype, at, kFractal, out + r * s.k + block * kFractal);
      }
    }
    return;
  }
  float columns[kFractal];
  for (int64_t i = 0; i < s.k; ++i) {
    const int64_t at = s.nz ? (first / kFractal * s.k + i) * kFractal : i * s.n + first;
    load(w.data, w.dtype, base + at, count, columns);
    for (int64_t r = 0; r < count; ++r) out[r * s.k + i] = columns[r];
  }
}

}  // namespace

Status matmul_shape(const std::string& op, const TensorDesc& x, const TensorDesc& weight, bool transpose_a,
                    bool transpose_b, MatmulShape& s) {
  if (rank(x) != 2 && rank(x) != 3) {
    return reject(ERROR_INVALID_TENSOR_DIM_NUM, op, ": x has the shape ", text(x), ", expected 2 or 3 dimensions");
  }
  Sizes w;
  ATB_SIM_TRY(weight_sizes(op, weight, w));
  s.transpose_a = transpose_a;
  s.transpose_b = transpose_b;
  s.nz = is_nz(weight);
  s.x_is_3d = rank(x) == 3;
  s.batch = s.x_is_3d ? dim(x, 0) : 1;
  s.m = dim(x, transpose_a ? -1 : -2);
  s.k = dim(x, transpose_a ? -2 : -1);
  s.weight_batch = w[0];
  s.n = transpose_b ? w[1] : w[2];
  const int64_t k = transpose_b ? w[2] : w[1];
  if (k != s.k) {
    return reject(ERROR_INVALID_TENSOR_DIM, op, ": x ", text(x), " has k = ", s.k, ", the weight ", text(weight),
                  " has k = ", k, " (transposeA ", transpose_a, ", transposeB ", transpose_b, ")");
  }
  if (!s.x_is_3d && (rank(weight) == 3 || w[0] != 1)) {
    return reject(ERROR_INVALID_TENSOR_DIM, op, ": a 2-D x ", text(x), " does not go with a weight in batches ",
                  text(weight));
  }
  // Only a weight without a batch of its own serves several, and only an x in rows.
  const bool shared = rank(weight) == 2 && !transpose_a;
  if (w[0] != s.batch && !shared) {
    return reject(ERROR_INVALID_TENSOR_DIM, op, ": x ", text(x), " has ", s.batch, " batches, the weight ",
                  text(weight), " ", w[0], transpose_a ? "; with transposeA both must have as many" : "");
  }
  return NO_ERROR;
}

Sizes matmul_sizes(const MatmulShape& s) { return s.x_is_3d ? Sizes{s.batch, s.m, s.n} : Sizes{s.m, s.n}; }

std::vector<float> matmul(const MatmulShape& s, const View& x, const View& weight) {
  const std::vector<float> rows = rows_of(s, x);
  std::vector<float> out(static_cast<size_t>(s.batch * s.m * s.n));
  std::vector<float> block(static_cast<size_t>(kFractal * s.k));
  const int64_t rounds = s.weight_batch, m = s.batch * s.m / rounds;  // one weight for all batches: one tall matrix
  for (int64_t b = 0; b < rounds; ++b) {
    for (int64_t first = 0; first < s.n; first += kFractal) {
      const int64_t count = std::min(kFractal, s.n - first);
      weight_rows(s, weight, b, first, count, block.data());
      for (int64_t i = b * m; i < (b + 1) * m; ++i) {
        dot_rows(rows.data() + i * s.k, block.data(), s.k, s.k, count, out.data() + i * s.n + first);
      }
    }
  }
  return out;
}

Status check_bias(const std::string& op, const MatmulShape& s, const TensorDesc& bias) {
  const bool row = rank(bias) == 1 || (rank(bias) == 2 && (dim(bias, 0) == 1 || dim(bias, 0) == s.weight_batch));
  if (row && dim(bias, -1) == s.n) return NO_ERROR;
  return reject(ERROR_INVALID_TENSOR_DIM, op, ": the bias has the shape ", text(bias),
                ", expected [n], [1, n] or [batch of the weight, n] with n = ", s.n);
}

void add_bias(const MatmulShape& s, const View& bias, std::vector<float>& out) {
  std::vector<float> values(static_cast<size_t>(bias.count()));
  load(bias.data, bias.dtype, 0, bias.count(), values.data());
  const bool per_batch = bias.count() > s.n;
  for (int64_t i = 0; i < s.batch * s.m; ++i) {
    add_scaled(1.0f, values.data() + (per_batch ? i / s.m * s.n : 0), s.n, out.data() + i * s.n);
  }
}

}  // namespace atb::sim
