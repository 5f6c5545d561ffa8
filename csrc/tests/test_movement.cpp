// SPDX-License-Identifier: Apache-2.0
#include <cstring>
#include <numeric>

#include "check.h"
#include "cpu/kernels/movement.h"
#include "cpu/kernels/sort.h"

using namespace atb_core;
using namespace atb_core::cpu;

namespace {

using Ints = std::vector<int64_t>;

template <typename T>
TensorView view_of(std::vector<T>& data, DataType dtype, const Ints& shape) {
  TensorView view{.data = data.data(), .dtype = dtype, .rank = static_cast<int>(shape.size())};
  std::copy(shape.begin(), shape.end(), view.shape);
  return view;
}

template <typename T>
std::vector<T> counting(int64_t n) {
  std::vector<T> values(static_cast<size_t>(n));
  std::iota(values.begin(), values.end(), T{0});
  return values;
}

// Runs the copy as `threads` workers would, one after another.
void copy_all(const CopyPlan& plan, const void* from, void* to, int threads) {
  for (int index = 0; index < threads; ++index) {
    copy(plan, from, to, Worker{.index = index, .count = threads});
  }
}

}  // namespace

TEST(transpose_reorders_dimensions) {
  std::vector<int32_t> x = counting<int32_t>(2 * 3 * 4), y(24, -1);
  const TensorView from = view_of(x, DataType::i32, {2, 3, 4});
  const Ints perm = {2, 0, 1};
  for (int threads : {1, 3}) {
    copy_all(transpose_plan(from, perm), x.data(), y.data(), threads);
    for (size_t a = 0; a < 2; ++a) {
      for (size_t b = 0; b < 3; ++b) {
        for (size_t c = 0; c < 4; ++c) CHECK(y[(c * 2 + a) * 3 + b] == x[(a * 3 + b) * 4 + c]);
      }
    }
  }
}

TEST(transpose_of_a_large_matrix_with_several_threads) {
  const int64_t rows = 301, columns = 257;
  std::vector<int16_t> x(static_cast<size_t>(rows * columns)), y(x.size());
  for (size_t i = 0; i < x.size(); ++i) x[i] = static_cast<int16_t>(i * 7);
  const Ints perm = {1, 0};
  copy_all(transpose_plan(view_of(x, DataType::f16, {rows, columns}), perm), x.data(), y.data(), 4);
  bool same = true;
  for (int64_t r = 0; r < rows; ++r) {
    for (int64_t c = 0; c < columns; ++c)
      same = same && y[static_cast<size_t>(c * rows + r)] == x[static_cast<size_t>(r * columns + c)];
  }
  CHECK(same);
}

TEST(boxes_are_cut_out_and_put_in) {
  std::vector<uint8_t> whole = counting<uint8_t>(4 * 5), part(6);
  const TensorView w = view_of(whole, DataType::i8, {4, 5}), p = view_of(part, DataType::i8, {2, 3});
  const Ints start = {1, 2};
  copy_all(read_box_plan(w, start, p), whole.data(), part.data(), 2);
  CHECK((part == std::vector<uint8_t>{7, 8, 9, 12, 13, 14}));
  for (uint8_t& value : part) value = static_cast<uint8_t>(value + 100);
  copy_all(write_box_plan(w, start, p), part.data(), whole.data(), 2);
  CHECK(whole[7] == 107 && whole[14] == 114 && whole[6] == 6 && whole[10] == 10 && whole[15] == 15);
}

TEST(repeat_tiles_every_dimension) {
  std::vector<int64_t> x = {1, 2, 3, 4}, y(24);
  const Ints multiples = {2, 1, 3};
  copy_all(repeat_plan(view_of(x, DataType::i64, {2, 2}), multiples), x.data(), y.data(), 1);
  CHECK((y == Ints{1, 2, 1, 2, 1, 2, 3, 4, 3, 4, 3, 4, 1, 2, 1, 2, 1, 2, 3, 4, 3, 4, 3, 4}));
}

TEST(empty_and_scalar_tensors_are_copied) {
  std::vector<float> x = {5}, y = {0};
  copy_all(transpose_plan(view_of(x, DataType::f32, {}), {}), x.data(), y.data(), 2);
  CHECK(y[0] == 5);
  const Ints perm = {1, 0};
  copy_all(transpose_plan(view_of(x, DataType::f32, {0, 3}), perm), x.data(), nullptr, 2);
}

TEST(a_bad_index_is_reported_and_not_read) {
  std::vector<float> x = {1, 2, 3}, out = {-1, -1};
  std::vector<int32_t> indices = {2, 3};
  ErrorSlot errors;
  gather({x.data(), indices.data(), out.data(), DataType::i32, 1, 1, 2, 3, sizeof(float)}, Worker{.error = &errors});
  CHECK(errors.failed());
  CHECK(errors.get().value == 3 && errors.get().position == 1 && errors.get().limit == 3);
  CHECK(out[0] == 3 && out[1] == -1);
}

TEST(the_largest_come_first_and_ties_keep_their_order) {
  std::vector<float> x = {1, 3, -0.0f, 3, 0.0f, -2}, values(5);
  std::vector<int32_t> indices(5), scratch(6);
  const TopArgs args{view_of(x, DataType::f32, {1, 6}), view_of(values, DataType::f32, {1, 5}),
                     view_of(indices, DataType::i32, {1, 5})};
  CHECK(top_scratch(args).per_thread >= scratch.size() * sizeof(int32_t));
  top(args, Worker{.scratch = reinterpret_cast<std::byte*>(scratch.data())});
  CHECK((indices == std::vector<int32_t>{1, 3, 0, 2, 4}));
  CHECK((values == std::vector<float>{3, 3, 1, 0, 0}));
}

TEST(argsort_orders_every_type_and_puts_nan_last) {
  // bfloat16: 1, nan, -inf, -2, -nan
  std::vector<uint16_t> x = {0x3f80, 0x7fc0, 0xff80, 0xc000, 0xffc0};
  std::vector<int32_t> order(5);
  argsort({view_of(x, DataType::bf16, {5}), view_of(order, DataType::i32, {5})}, Worker{});
  CHECK((order == std::vector<int32_t>{2, 3, 0, 1, 4}));
  std::vector<int64_t> y = {INT64_MAX, INT64_MIN, 0, -1};
  argsort({view_of(y, DataType::i64, {4}), view_of(order, DataType::i32, {4})}, Worker{});
  CHECK(order[0] == 1 && order[1] == 3 && order[2] == 2 && order[3] == 0);
}

TEST_MAIN()
