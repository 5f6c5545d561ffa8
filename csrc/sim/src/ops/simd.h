// SPDX-License-Identifier: Apache-2.0
// The two loops that take most of the simulator's time. The order of additions depends on the length alone, so that the
// result of a row does not depend on other rows.
#pragma once

#include <cstdint>

namespace atb::sim {

// out[j] = sum of a[i] * b[j][i] over i < n, for `rows` rows of b that lie `stride` apart.
void dot_rows(const float* a, const float* b, int64_t n, int64_t stride, int64_t rows, float* out);

// out[i] += factor * x[i], i < n.
void add_scaled(float factor, const float* x, int64_t n, float* out);

}  // namespace atb::sim
