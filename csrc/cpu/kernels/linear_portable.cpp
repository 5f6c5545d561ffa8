// SPDX-License-Identifier: Apache-2.0
// The level without any instruction set extension, also for other architectures.
#define ATB_CPU_LEVEL portable
#include "cpu/kernels/vec_portable.h"
// The vector type comes first.
#include "cpu/kernels/linear_exact-inl.h"
#include "cpu/kernels/linear_finish-inl.h"
#include "cpu/kernels/linear_vector-inl.h"

namespace atb_core::cpu {
namespace portable {
namespace {

// For bf16 and f16. Products of f32 have up to 48 bits; rounding their sums twice is not harmless.
template <class P>
struct ShortProducts : P {
  static F16 mac(const F16& sum, const F16& weight, const F16& value) { return fma_short(weight, value, sum); }
};

int tile_blocks(int) { return 1; }

template <class P>
void multiply(const TileJob& job) {
  constexpr void (*kTiles[])(const TileJob&) = {multiply_tile<P, 1, 1>, multiply_tile<P, 2, 1>};
  kTiles[job.rows - 1](job);
}

template <class P>
constexpr LinearKernel kKernel = {
    1, 2, P::kRowBytes, 16 << 10, tile_blocks, prepare_row<P>, multiply<P>, finish, no_setup, no_teardown,
};

}  // namespace
}  // namespace portable

const LinearKernel* linear_kernel_portable(DataType dtype) {
  switch (dtype) {
    case DataType::bf16:
      return &portable::kKernel<portable::ShortProducts<portable::Pairs>>;
    case DataType::f16:
      return &portable::kKernel<portable::ShortProducts<portable::Scalars<Half>>>;
    case DataType::f32:
      return &portable::kKernel<portable::Scalars<float>>;
    default:
      return nullptr;
  }
}

}  // namespace atb_core::cpu
