// SPDX-License-Identifier: Apache-2.0
#include "check.h"
#include "graph/dims.h"

using atb_core::DimExpr;
using Op = DimExpr::Op;
using Sizes = std::vector<int64_t>;

namespace {

const std::vector<std::string> kNames = {"tokens", "heads"};

DimExpr dim(int index) { return DimExpr({{Op::dim, index}}, 2); }
// 3 * tokens * heads - tokens
DimExpr polynomial() {
  return DimExpr({{Op::constant, 3},
                  {Op::dim, 0},
                  {Op::mul, 0},
                  {Op::dim, 1},
                  {Op::mul, 0},
                  {Op::constant, -1},
                  {Op::dim, 0},
                  {Op::mul, 0},
                  {Op::add, 0}},
                 2);
}
DimExpr half_tokens() { return DimExpr({{Op::dim, 0}, {Op::constant, 2}, {Op::floor_div, 0}}, 2); }

bool match(const atb_core::SymbolicShape& declared, const Sizes& real, Sizes& sizes) {
  return atb_core::match_shape("x", declared, real, kNames, sizes);
}

}  // namespace

TEST(expressions_evaluate) {
  CHECK(polynomial().evaluate(Sizes{4, 5}) == 56);
  CHECK(half_tokens().evaluate(Sizes{7, 0}) == 3);
  CHECK(DimExpr(int64_t{9}).evaluate({}) == 9);
  CHECK((polynomial().dims() == std::vector<int>{0, 1}));
}

TEST(malformed_expressions_are_refused) {
  CHECK_THROWS(DimExpr({{Op::add, 0}}, 2), "malformed");
  CHECK_THROWS(DimExpr({{Op::constant, 1}, {Op::constant, 2}}, 2), "malformed");
  CHECK_THROWS(DimExpr(std::vector<DimExpr::Step>{}, 2), "malformed");
  CHECK_THROWS(DimExpr({{Op::dim, 2}}, 2), "unknown dimension 2");
  CHECK_THROWS(DimExpr({{static_cast<Op>(17), 2}}, 2), "unknown operation");
}

TEST(overflow_and_division_by_zero_are_errors) {
  const DimExpr square({{Op::dim, 0}, {Op::dim, 0}, {Op::mul, 0}}, 1);
  CHECK_THROWS(square.evaluate(Sizes{int64_t{1} << 40}), "64 bits");
  const DimExpr ratio({{Op::dim, 0}, {Op::dim, 1}, {Op::floor_div, 0}}, 2);
  CHECK_THROWS(ratio.evaluate(Sizes{1, 0}), "zero");
}

TEST(a_linear_expression_tells_its_dimension) {
  CHECK(polynomial().solve(0, 56, Sizes{-1, 5}) == 4);
  CHECK(polynomial().solve(1, 56, Sizes{4, -1}) == 5);
  CHECK(!polynomial().solve(0, 57, Sizes{-1, 5}));
  CHECK(!dim(0).solve(0, -3, Sizes{-1, 5}));
}

TEST(shapes_tell_dimensions_and_are_checked) {
  Sizes sizes = {-1, -1};
  CHECK(!match({polynomial()}, {56}, sizes));  // two unknowns: later
  CHECK(match({dim(0), DimExpr(int64_t{8})}, {4, 8}, sizes));
  CHECK(match({polynomial()}, {56}, sizes));
  CHECK((sizes == Sizes{4, 5}));
}

TEST(conflicts_name_tensor_and_dimension) {
  Sizes sizes = {4, 5};
  CHECK_THROWS(match({dim(0)}, {6}, sizes), "'x' has shape [6]: its dimension 0 must be 4 (tokens = 4), not 6");
  CHECK_THROWS(match({DimExpr(int64_t{8})}, {7}, sizes), "must be 8, not 7");
  CHECK_THROWS(match({dim(0)}, {4, 4}, sizes), "must have 1 dimensions");
  Sizes open = {-1, 5};
  CHECK_THROWS(match({polynomial()}, {57}, open), "no size of dimension 'tokens'");
}

TEST_MAIN()
