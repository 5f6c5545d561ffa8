// SPDX-License-Identifier: Apache-2.0
// The host simulator's elementwise operations, reductions, data movement and communication.
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <functional>
#include <thread>

#include "ops/columns.h"
#include "ops/rendezvous.h"
#include "sim_ops.h"

using namespace atb_core::test;

namespace {

using infer::ElewiseParam;

ElewiseParam elewise(ElewiseParam::ElewiseType type, aclDataType to = ACL_DT_UNDEFINED) {
  ElewiseParam param;
  param.elewiseType = type;
  param.outTensorType = to;
  param.mulsParam.varAttr = 0.5f;
  return param;
}

infer::ActivationParam activation(infer::ActivationType type) {
  infer::ActivationParam param;
  param.activationType = type;
  return param;
}

Values counting(int64_t n) {
  Values out;
  for (int64_t i = 0; i < n; ++i) out.push_back(static_cast<double>(i));
  return out;
}

template <typename T>
SVector<T> list(std::initializer_list<T> values) {
  SVector<T> out;
  for (T value : values) out.push_back(value);
  return out;
}

// Runs an operation on every rank, each in its own thread.
template <typename Param>
std::vector<Values> on_ranks(Param param, const std::vector<Data>& in) {
  std::vector<Values> out(in.size());
  std::vector<std::thread> threads;
  param.rankSize = static_cast<int>(in.size());
  param.commMode = infer::COMM_MULTI_THREAD;
  for (size_t r = 0; r < in.size(); ++r) {
    threads.emplace_back([&, param, r]() mutable {
      param.rank = static_cast<int>(r);
      const Result result = run(param, {in[r]});
      if (result.status == NO_ERROR) out[r] = result.out[0].values();
    });
  }
  for (std::thread& thread : threads) thread.join();
  return out;
}

}  // namespace

TEST(activations_follow_their_formulas) {
  const Values x = {-2.0, -0.5, 0.0, 0.5, 1.0, 3.0};
  const auto check = [&](infer::ActivationParam param, aclDataType dtype, const std::function<double(double)>& f) {
    Values expected;
    for (double value : x) expected.push_back(f(value));
    return close(run(param, {{dtype, {2, 3}, x}}).out[0].values(), expected, dtype == ACL_FLOAT ? 1e-6 : 1e-3);
  };
  const auto sigmoid = [](double v) { return 1.0 / (1.0 + std::exp(-v)); };
  CHECK(check(activation(infer::ACTIVATION_RELU), ACL_FLOAT, [](double v) { return std::max(v, 0.0); }));
  CHECK(check(activation(infer::ACTIVATION_SIGMOID), ACL_FLOAT16, sigmoid));
  CHECK(check(activation(infer::ACTIVATION_SWISH), ACL_FLOAT16, [&](double v) { return v * sigmoid(v); }));
  CHECK(check(activation(infer::ACTIVATION_GELU), ACL_FLOAT, [](double v) {
    return 0.5 * v * (1.0 + std::tanh(std::sqrt(2.0 / M_PI) * (v + 0.044715 * v * v * v)));
  }));
  infer::ActivationParam erf = activation(infer::ACTIVATION_GELU);
  erf.geluMode = infer::ActivationParam::NONE_MODE;
  CHECK(check(erf, ACL_FLOAT, [](double v) { return 0.5 * v * (1.0 + std::erf(v / std::sqrt(2.0))); }));
  const auto fast = [&](double v) { return v * sigmoid(1.702 * v); };  // what both fast forms simplify to
  CHECK(check(activation(infer::ACTIVATION_FAST_GELU), ACL_FLOAT16, fast));
  CHECK(check(activation(infer::ACTIVATION_FASTER_GELU_FORWARD), ACL_FLOAT, fast));
}

TEST(swiglu_halves_the_last_dimension_with_the_gate_first) {
  const auto silu = [](double v) { return v / (1.0 + std::exp(-v)); };
  const Data x(ACL_FLOAT, {2, 4}, {1, 2, 3, 4, -1, -2, 5, 6}), dy(ACL_FLOAT, {2, 2}, {1, 1, 1, 1});
  const Values y = {silu(1) * 3, silu(2) * 4, silu(-1) * 5, silu(-2) * 6};
  CHECK(close(run(activation(infer::ACTIVATION_SWIGLU_FORWARD), {x}).out[0].values(), y));
  const Values dx = run(activation(infer::ACTIVATION_SWIGLU_BACKWARD), {dy, x}).out[0].values();
  CHECK(close({dx[2]}, {silu(1)}) && close({dx[0]}, {(silu(1.001) - silu(0.999)) / 0.002 * 3}, 1e-4));
  CHECK(run(activation(infer::ACTIVATION_SWIGLU_FORWARD), {{ACL_FLOAT, {2, 3}}}).status == ERROR_INVALID_TENSOR_DIM);
  const Data half(ACL_FLOAT16, {2, 4}), single(ACL_FLOAT, {2, 4});
  CHECK(run(activation(infer::ACTIVATION_RELU), {half}).status == ERROR_INVALID_TENSOR_INI_MATCH);
  CHECK(run(activation(infer::ACTIVATION_SWISH), {single}).status == ERROR_INVALID_TENSOR_INI_MATCH);
  infer::ActivationParam param = activation(infer::ACTIVATION_GELU);
  param.dim = 0;
  CHECK(create(param) == ERROR_INVALID_PARAM && create(infer::ActivationParam{}) == ERROR_INVALID_PARAM);
}

TEST(swiglu_on_310p_takes_rows_in_steps_of_32) {
  const Data wide(ACL_FLOAT16, {2, 64}), odd(ACL_FLOAT16, {2, 48});
  CHECK(run(activation(infer::ACTIVATION_SWIGLU_FORWARD), {odd}).status == NO_ERROR);
  const Soc soc("Ascend310P3");
  CHECK(run(activation(infer::ACTIVATION_SWIGLU_FORWARD), {wide}).status == NO_ERROR);
  CHECK(run(activation(infer::ACTIVATION_SWIGLU_FORWARD), {odd}).status == ERROR_INVALID_TENSOR_DIM);
  CHECK(says("multiple of 32") && run(activation(infer::ACTIVATION_GELU), {odd}).status == NO_ERROR);
}

TEST(elewise_computes_and_broadcasts) {
  const Data a(ACL_FLOAT16, {2, 3}, {1, 2, 3, 4, 5, 6}), b(ACL_FLOAT16, {3}, {2, 4, 2}), c(ACL_FLOAT16, {2, 1}, {1, 2});
  const auto two = [&](ElewiseParam::ElewiseType type, const Data& x, const Data& y) {
    return run(elewise(type), {x, y}).out[0].values();
  };
  CHECK(two(ElewiseParam::ELEWISE_ADD, a, b) == Values({3, 6, 5, 6, 9, 8}));
  CHECK(two(ElewiseParam::ELEWISE_SUB, b, a) == Values({1, 2, -1, -2, -1, -4}));
  CHECK(two(ElewiseParam::ELEWISE_MUL, a, c) == Values({1, 2, 3, 8, 10, 12}));
  CHECK(two(ElewiseParam::ELEWISE_REALDIV, a, b) == Values({0.5, 0.5, 1.5, 2, 1.25, 3}));
  CHECK(two(ElewiseParam::ELEWISE_LESS, a, b) == Values({1, 1, 0, 0, 0, 0}));
  CHECK(two(ElewiseParam::ELEWISE_GREATER, a, b) == Values({0, 0, 1, 1, 1, 1}));
  CHECK(two(ElewiseParam::ELEWISE_EQUAL, a, c) == Values({1, 0, 0, 0, 0, 0}));
  CHECK(two(ElewiseParam::ELEWISE_ADD, c, b) == Values({3, 5, 3, 4, 6, 4}));
  const Data n(ACL_INT32, {2}, {-5, 2147483647}), m(ACL_INT32, {2}, {1, 1}), flags(ACL_INT8, {2}, {0, 3});
  CHECK(two(ElewiseParam::ELEWISE_ADD, n, m) == Values({-4, -2147483648.0}));
  CHECK(two(ElewiseParam::ELEWISE_LOGICAL_OR, flags, flags) == Values({0, 1}));
  CHECK(run(elewise(ElewiseParam::ELEWISE_LOGICAL_NOT), {flags}).out[0].values() == Values({1, 0}));
  CHECK(run(elewise(ElewiseParam::ELEWISE_MULS), {c}).out[0].values() == Values({0.5, 1}));
  CHECK(run(elewise(ElewiseParam::ELEWISE_NEG), {c}).out[0].values() == Values({-1, -2}));
  CHECK(close(run(elewise(ElewiseParam::ELEWISE_TANH), {c}).out[0].values(), {std::tanh(1.0), std::tanh(2.0)}, 1e-3));
  CHECK(close(run(elewise(ElewiseParam::ELEWISE_COS), {c}).out[0].values(), {std::cos(1.0), std::cos(2.0)}, 1e-3));
}

TEST(cast_goes_between_the_pairs_that_atb_has) {
  const Data x(ACL_FLOAT, {2}, {1.0 / 3, 70000});
  CHECK(run(elewise(ElewiseParam::ELEWISE_CAST), {x}).out[0].desc.dtype == ACL_FLOAT16);
  const Data rounded = run(elewise(ElewiseParam::ELEWISE_CAST, ACL_BF16), {x}).out[0];
  CHECK(rounded.desc.dtype == ACL_BF16 && rounded.values()[0] == 0.333984375);
  const Data n(ACL_INT64, {1}, {-7}), half(ACL_FLOAT16, {1});
  CHECK(run(elewise(ElewiseParam::ELEWISE_CAST, ACL_INT32), {n}).out[0].values() == Values({-7}));
  CHECK(run(elewise(ElewiseParam::ELEWISE_CAST, ACL_BF16), {half}).status == ERROR_INVALID_TENSOR_INI_MATCH);
}

TEST(elewise_refuses_what_atb_refuses) {
  const Data f32(ACL_FLOAT, {2, 3}), f16(ACL_FLOAT16, {2, 3}), other(ACL_FLOAT16, {2, 2});
  CHECK(run(elewise(ElewiseParam::ELEWISE_MUL), {f32, f32}).status == ERROR_INVALID_TENSOR_INI_MATCH && says("MUL"));
  CHECK(run(elewise(ElewiseParam::ELEWISE_SUB), {f32, f32}).status == ERROR_INVALID_TENSOR_INI_MATCH);
  CHECK(run(elewise(ElewiseParam::ELEWISE_ADD), {f32, f16}).status == ERROR_INVALID_TENSOR_INI_MATCH);
  CHECK(run(elewise(ElewiseParam::ELEWISE_ADD), {f16, other}).status == ERROR_INVALID_TENSOR_DIM && says("broadcast"));
  CHECK(create(ElewiseParam{}) == ERROR_INVALID_PARAM);
  CHECK(create(elewise(ElewiseParam::ELEWISE_QUANT)) == ERROR_INVALID_PARAM && says("not in the simulator"));
  ElewiseParam param = elewise(ElewiseParam::ELEWISE_ADD);
  param.quantParam.rsv[3] = 1;
  CHECK(create(param) == ERROR_INVALID_PARAM);
}

TEST(gather_picks_rows_and_throws_on_an_index_outside) {
  infer::GatherParam param;
  const Data table(ACL_FLOAT16, {3, 2}, counting(6)), ids(ACL_INT64, {2, 2}, {2, 0, 1, 1});
  const Result rows = run(param, {table, ids});
  CHECK(sizes(rows.out[0].desc) == Sizes({2, 2, 2}));
  CHECK(rows.out[0].values() == Values({4, 5, 0, 1, 2, 3, 2, 3}));
  CHECK_THROWS(run(param, {table, {ACL_INT32, {1}, {3}}}), "index 3");
  param.axis = 1;
  CHECK(run(param, {table, {ACL_INT32, {1}, {1}}}).out[0].values() == Values({1, 3, 5}));
  param.batchDims = 1;
  CHECK(run(param, {table, {ACL_INT32, {3, 1}, {1, 0, 1}}}).out[0].values() == Values({1, 2, 5}));
  CHECK(run(param, {table, {ACL_INT32, {2, 1}}}).status == ERROR_INVALID_TENSOR_DIM);
  param.axis = 0;
  CHECK(create(param) == ERROR_INVALID_PARAM);
  CHECK(run(infer::GatherParam{}, {table, table}).status == ERROR_INVALID_TENSOR_INI_MATCH);
}

TEST(concat_split_and_slice_cut_along_an_axis) {
  const Data x(ACL_FLOAT16, {2, 6}, counting(12)), y(ACL_FLOAT16, {2, 1}, {20, 21});
  infer::ConcatParam concat;
  concat.concatDim = -1;
  CHECK(run(concat, {x, y}).out[0].values() == Values({0, 1, 2, 3, 4, 5, 20, 6, 7, 8, 9, 10, 11, 21}));
  concat.concatDim = 0;
  CHECK(run(concat, {x, y}).status == ERROR_INVALID_TENSOR_DIM);
  infer::SplitParam split;
  split.splitDim = 1;
  split.splitNum = 3;
  CHECK(run(split, {x}).out[2].values() == Values({4, 5, 10, 11}));
  split.splitSizes = list<int32_t>({1, 3, 2});
  CHECK(run(split, {x}).out[1].values() == Values({1, 2, 3, 7, 8, 9}));
  split.splitSizes = list<int32_t>({1, 3, 1});
  CHECK(run(split, {x}).status == ERROR_INVALID_PARAM && says("add up to 5"));
  split.splitDim = -1;
  CHECK(create(split) == ERROR_INVALID_PARAM);
  split.splitNum = 4;
  CHECK(create(split) == ERROR_INVALID_PARAM && says("2 or 3"));
  infer::SliceParam slice;
  slice.offsets = list<int64_t>({1, 2});
  slice.size = list<int64_t>({1, -1});
  CHECK(run(slice, {x}).out[0].values() == Values({8, 9, 10, 11}));
  slice.offsets = list<int64_t>({-1, -4});
  CHECK(run(slice, {x}).out[0].values() == Values({8, 9, 10, 11}));
  slice.offsets = list<int64_t>({0, -7});
  CHECK(run(slice, {x}).status == ERROR_INVALID_PARAM && says("offset -7"));
  slice.offsets = list<int64_t>({1, 2});
  slice.size = list<int64_t>({1, 5});
  CHECK(run(slice, {x}).status == ERROR_INVALID_PARAM);
}

TEST(transpose_repeat_and_set_value_move_boxes) {
  infer::TransposeParam transpose;
  transpose.perm = list<int32_t>({1, 0});
  CHECK(run(transpose, {{ACL_FLOAT16, {2, 3}, counting(6)}}).out[0].values() == Values({0, 3, 1, 4, 2, 5}));
  CHECK(run(transpose, {{ACL_FLOAT, {2, 3}}}).status == ERROR_INVALID_TENSOR_INI_MATCH);
  transpose.perm = list<int32_t>({1, 1});
  CHECK(run(transpose, {{ACL_FLOAT16, {2, 3}}}).status == ERROR_INVALID_PARAM);
  infer::RepeatParam repeat;
  repeat.multiples = list<int64_t>({2, 2});
  CHECK(run(repeat, {{ACL_FLOAT16, {1, 2}, {1, 2}}}).out[0].values() == Values({1, 2, 1, 2, 1, 2, 1, 2}));
  repeat.multiples = list<int64_t>({2, 1, 1, 1, 1, 1, 1, 2});
  CHECK(run(repeat, {{ACL_FLOAT16, {1}, {5}}}).out[0].values() == filled(4, 5));
  repeat.multiples = list<int64_t>({2, 2, 2});
  CHECK(run(repeat, {{ACL_FLOAT16, {1, 1, 2}, {1, 2}}}).out[0].values().size() == 16);
  // Dimensions of one element take no further one.
  repeat.multiples = list<int64_t>({2, 2, 2, 2, 2});
  CHECK(run(repeat, {{ACL_FLOAT16, {1, 1, 2, 2, 2}}}).status == NO_ERROR);
  CHECK(run(repeat, {{ACL_FLOAT16, {1, 2, 2, 2, 2}}}).status == ERROR_INVALID_TENSOR_DIM_NUM &&
        says("of which 4 grow"));
  repeat.multiples = list<int64_t>({1, 1, 1, 1, 1, 1, 1, 1, 2});
  CHECK(create(repeat) == ERROR_INVALID_PARAM && says("9 multiples"));
  infer::SetValueParam set;
  set.starts = list<int64_t>({0, 1});
  set.ends = list<int64_t>({2, 2});
  set.strides = list<int64_t>({1, 1});
  CHECK(run(set, {{ACL_FLOAT, {2, 3}}, {ACL_FLOAT, {2, 1}, {7, 8}}}).out[0].values() == Values({0, 7, 0, 0, 8, 0}));
  CHECK(run(set, {{ACL_FLOAT, {2, 3}}, {ACL_FLOAT, {2, 2}}}).status == ERROR_INVALID_TENSOR_DIM);
  set.strides = list<int64_t>({1, 2});
  CHECK(create(set) == ERROR_INVALID_PARAM);
}

TEST(transdata_goes_to_fractals_and_back) {
  infer::TransdataParam to, back;
  to.transdataType = infer::TransdataParam::ND_TO_FRACTAL_NZ;
  back.transdataType = infer::TransdataParam::FRACTAL_NZ_TO_ND;
  back.outCrops = list<int64_t>({3, 20});
  const Data x(ACL_FLOAT16, {1, 3, 20}, counting(60));
  const Data nz = run(to, {x}).out[0];
  CHECK(sizes(nz.desc) == Sizes({1, 2, 16, 16}) && is_nz(nz.desc));
  CHECK(nz.values()[16] == 20 && nz.values()[256 + 3] == 19 && nz.values()[256 + 4] == 0);
  CHECK(run(back, {nz}).out[0].values() == x.values());
  // What is cut away is less than a block.
  for (const auto& [rows, columns] : {std::pair{3, 16}, std::pair{17, 20}, std::pair{3, 33}, std::pair{0, 20}}) {
    back.outCrops = list<int64_t>({rows, columns});
    CHECK(run(back, {nz}).status == ERROR_INVALID_TENSOR_DIM && says("outCrops"));
  }
  back.outCrops = list<int64_t>({3, 20});
  const Data bytes = run(to, {{ACL_INT8, {1, 3, 20}}}).out[0];
  CHECK(run(back, {bytes}).status == ERROR_INVALID_TENSOR_INI_MATCH && says("int8"));
  CHECK(create(infer::TransdataParam{}) == ERROR_INVALID_PARAM);
}

TEST(softmax_sort_and_reduce) {
  infer::SoftmaxParam softmax;
  softmax.axes = list<int64_t>({-1});
  const Values p = run(softmax, {{ACL_FLOAT, {1, 2}, {0, 1}}}).out[0].values();
  CHECK(close(p, {1 / (1 + std::exp(1.0)), 1 / (1 + std::exp(-1.0))}));
  softmax.axes = list<int64_t>({0, 1});
  CHECK(close(run(softmax, {{ACL_FLOAT, {2, 2}, {5, 5, 5, 5}}}).out[0].values(), filled(4, 0.25)));
  softmax.axes = list<int64_t>({1, 0});
  CHECK(run(softmax, {{ACL_FLOAT, {2, 2}}}).status == ERROR_INVALID_PARAM);
  for (const auto& axes : {list<int64_t>({-2}), list<int64_t>({0, -1}), list<int64_t>({-2, -1})}) {
    softmax.axes = axes;
    CHECK(create(softmax) == ERROR_INVALID_PARAM && says("-1 alone"));
  }
  infer::SortParam sort;
  sort.num = list<int32_t>({2});
  const Result best = run(sort, {{ACL_FLOAT16, {2, 4}, {1, 3, 2, 3, -1, -5, -2, -3}}});
  CHECK(best.out[0].values() == Values({3, 3, -1, -2}) && best.out[1].values() == Values({1, 3, 0, 2}));
  CHECK(run(sort, {{ACL_FLOAT16, {1, 1}}}).status == ERROR_INVALID_PARAM && says("the 2 largest"));
  CHECK(create(infer::SortParam{}) == ERROR_INVALID_PARAM);
  infer::ReduceParam reduce;
  reduce.reduceType = infer::ReduceParam::REDUCE_SUM;
  reduce.axis = list<int64_t>({1});
  CHECK(run(reduce, {{ACL_FLOAT16, {2, 3}, counting(6)}}).out[0].values() == Values({3, 12}));
  CHECK(run(reduce, {{ACL_FLOAT16, {1, 3}, counting(3)}}).out[0].values() == Values({3}));
  CHECK(run(reduce, {{ACL_FLOAT16, {3}}}).status == ERROR_INVALID_PARAM);
  reduce.axis = list<int64_t>({1, 0});
  CHECK(run(reduce, {{ACL_FLOAT16, {2, 3}}}).status == ERROR_INVALID_PARAM && says("all axes"));
  reduce.axis = list<int64_t>({-1});
  CHECK(run(reduce, {{ACL_FLOAT16, {2, 3}}}).status == ERROR_INVALID_PARAM && says("count from the front"));
  reduce.axis = list<int64_t>({1});
  reduce.reduceType = infer::ReduceParam::REDUCE_MAX;
  CHECK(run(reduce, {{ACL_INT32, {2, 3}, {4, -1, 9, -3, -2, -8}}}).out[0].values() == Values({9, -2}));
  CHECK(run(reduce, {{ACL_FLOAT16, {2, 3}}}).status == ERROR_INVALID_TENSOR_INI_MATCH);
  CHECK(create(infer::ReduceParam{}) == ERROR_INVALID_PARAM);
  const Soc soc("Ascend310P3");
  CHECK(run(reduce, {{ACL_INT32, {2, 3}, {4, -1, 9, -3, -2, -8}}}).out[0].values() == Values({9, -2}));
  CHECK(run(reduce, {{ACL_BF16, {2, 3}}}).status == ERROR_INVALID_TENSOR_INI_MATCH && says("310P"));
  reduce.reduceType = infer::ReduceParam::REDUCE_SUM;
  CHECK(run(reduce, {{ACL_FLOAT16, {2, 3}, counting(6)}}).out[0].values() == Values({3, 12}));
  CHECK(run(sort, {{ACL_FLOAT16, {2, 4}}}).status == NO_ERROR);
}

TEST(ranks_as_threads_reduce_and_gather) {
  const Devices devices(3);
  std::vector<Data> in;
  for (double r : {1.0, 2.0, 4.0}) in.emplace_back(ACL_FLOAT16, Sizes{2}, Values{r, -r});
  infer::AllReduceParam reduce;
  reduce.commDomain = "7";
  for (int round = 0; round < 20; ++round) {
    for (const Values& got : on_ranks(reduce, in)) CHECK(got == Values({7, -7}));
  }
  reduce.allReduceType = "max";
  for (const Values& got : on_ranks(reduce, in)) CHECK(got == Values({4, -1}));
  infer::AllGatherParam gather;
  for (const Values& got : on_ranks(gather, in)) CHECK(got == Values({1, -1, 2, -2, 4, -4}));
  CHECK(on_ranks(reduce, {in[0]})[0] == Values({1, -1}));  // a communicator of one
}

namespace {

// For names of domains, the same in processes that this one forks.
const std::string kRun = " of process " + std::to_string(::getpid());

// Runs `work` as rank 1 in a process of its own; its result is the exit code.
pid_t other_process(const std::function<bool(int)>& work) {
  const pid_t child = ::fork();
  if (child == 0) {
    bool good = false;
    try {
      good = work(1);
    } catch (const std::exception&) {
    }
    ::_exit(good ? 0 : 1);
  }
  return child;
}

bool ended_well(pid_t process) {
  int status = -1;
  return ::waitpid(process, &status, 0) == process && WIFEXITED(status) && WEXITSTATUS(status) == 0;
}

infer::AllReduceParam over_two_processes(int rank, const std::string& domain) {
  infer::AllReduceParam param;
  param.rank = rank;
  param.rankSize = 2;
  param.commDomain = domain + kRun;
  return param;
}

}  // namespace

TEST(ranks_as_processes_reduce) {
  const Devices devices(2);
  const auto rounds = [](int rank) {
    const infer::AllReduceParam param = over_two_processes(rank, "rounds");
    bool good = true;
    for (double round = 1; round < 20; ++round) {
      const Data x(ACL_FLOAT16, {2}, {round, rank == 0 ? 3.0 : 4.0});
      good = good && run(param, {x}).out[0].values() == Values({2 * round, 7});
    }
    infer::AllGatherParam gather;
    gather.rank = rank;
    gather.rankSize = 2;
    gather.commDomain = param.commDomain;
    good = good && run(gather, {{ACL_FLOAT16, {1}, {rank + 1.0}}}).out[0].values() == Values({1, 2});
    // More than a socket takes at once.
    const Values got = run(param, {{ACL_FLOAT, {1 << 18}, Values(1 << 18, rank + 1.0)}}).out[0].values();
    return good && got == Values(1 << 18, 3.0);
  };
  const pid_t other = other_process(rounds);
  CHECK(rounds(0));
  CHECK(ended_well(other));
}

TEST(a_process_that_ends_or_brings_another_shape_fails_the_others_at_once) {
  const Devices devices(2);
  const Data x(ACL_FLOAT16, {2});
  const auto once = [&](int rank) { return run(over_two_processes(rank, "ends"), {x}).status == NO_ERROR; };
  pid_t other = other_process(once);
  CHECK(once(0));
  CHECK(ended_well(other));
  CHECK_THROWS(once(0), "rank 1 of 2 has ended");
  const auto wide = [](int rank) {
    (void)run(over_two_processes(rank, "shapes"), {{ACL_FLOAT16, {3}}});
    return false;
  };
  other = other_process([&](int rank) {
    CHECK_THROWS(wide(rank), "another shape or type than rank 0");
    return true;
  });
  CHECK_THROWS(run(over_two_processes(0, "shapes"), {x}), "rank 1 of 2 brings another shape");
  CHECK(ended_well(other));
  set_rendezvous_timeout(std::chrono::milliseconds(50));
  CHECK_THROWS(run(over_two_processes(0, "alone"), {x}), "waited in vain for the other ranks");
  CHECK_THROWS(run(over_two_processes(1, "alone"), {x}), "waited in vain for rank 0");
  set_rendezvous_timeout(std::chrono::seconds(60));
}

TEST(linear_parallel_sums_over_the_ranks_and_adds_the_residual_once) {
  const Devices devices(2);
  Values out[2];
  std::vector<std::thread> threads;
  for (int r = 0; r < 2; ++r) {
    threads.emplace_back([&, r] {
      infer::LinearParallelParam param;
      param.rank = r;
      param.rankSize = 2;
      param.commMode = infer::COMM_MULTI_THREAD;
      param.hasResidual = true;
      const Data x(ACL_FLOAT16, {1, 2}, {1, 2}), w(ACL_FLOAT16, {1, 2}, {3, 4}), residual(ACL_FLOAT16, {1}, {100});
      out[r] = run(param, {x, w, residual}).out[0].values();
    });
  }
  for (std::thread& thread : threads) thread.join();
  CHECK(out[0] == Values({122}) && out[1] == out[0]);
}

TEST(the_residual_of_linear_parallel_is_a_row) {
  infer::LinearParallelParam param;
  param.rankSize = 1;
  param.hasResidual = true;
  const auto status = [&](const Sizes& residual) {
    return run(param, {{ACL_FLOAT16, {3, 32}}, {ACL_FLOAT16, {16, 32}}, {ACL_FLOAT16, residual}}).status;
  };
  CHECK(status({16}) == NO_ERROR && status({1, 16}) == NO_ERROR);
  CHECK(status({3, 16}) == ERROR_INVALID_TENSOR_DIM && says("no [n] or [1, n] with n = 16"));
  CHECK(status({32}) == ERROR_INVALID_TENSOR_DIM);
}

TEST(lcoc_is_for_linear_parallel_and_powers_of_two) {
  const Devices devices(4);
  infer::LinearParallelParam param;
  param.commMode = infer::COMM_MULTI_THREAD;
  param.backend = "lcoc";
  for (int ranks : {1, 2, 4}) {
    param.rankSize = ranks;
    CHECK(create(param) == NO_ERROR);
  }
  param.rankSize = 3;
  CHECK(create(param) == ERROR_INVALID_PARAM && says("power of two"));
  infer::AllReduceParam reduce;
  reduce.rankSize = 1;
  reduce.backend = "lcoc";
  CHECK(create(reduce) == ERROR_INVALID_PARAM && says("neither hccl nor lccl"));
  const Soc soc("Ascend310P3");
  param.rankSize = 2;
  CHECK(create(param) == ERROR_INVALID_PARAM && says("lcoc"));
}

TEST(there_are_no_more_ranks_than_devices_without_a_communicator_or_a_rank_table) {
  infer::AllReduceParam param;
  param.commMode = infer::COMM_MULTI_THREAD;
  param.rankSize = 2;
  CHECK(create(param) == ERROR_INVALID_PARAM && says("rankSize 2 is more than the 1 devices"));
  param.rankTableFile = "table.json";
  CHECK(create(param) == NO_ERROR);
  param.rankTableFile.clear();
  int communicator = 0;
  param.hcclComm = &communicator;
  CHECK(create(param) == NO_ERROR);
  param.rank = 7;  // it is the communicator that counts
  CHECK(create(param) == NO_ERROR);
  const Devices devices(2);
  param.hcclComm = nullptr;
  param.rank = 1;
  CHECK(create(param) == NO_ERROR);
}

TEST(linear_parallel_is_refused_with_what_is_not_simulated) {
  infer::LinearParallelParam param;
  param.rankSize = 1;
  CHECK(create(param) == NO_ERROR);
  param.moeInfo.epSize = 2;
  CHECK(create(param) == ERROR_INVALID_PARAM && says("moeInfo"));
  param.moeInfo.epSize = 1;
  param.twoDimTPInfo.rsDim = 2;
  CHECK(create(param) == ERROR_INVALID_PARAM && says("twoDimTPInfo"));
  param.twoDimTPInfo.rsDim = 0;
  param.twoDimTPInfo.innerDimIsAg = 0;
  CHECK(create(param) == ERROR_INVALID_PARAM);
}

TEST(a_rank_that_waits_in_vain_or_brings_another_shape_fails) {
  const Devices devices(2);
  infer::AllReduceParam param;
  param.rankSize = 2;
  param.commMode = infer::COMM_MULTI_THREAD;
  const Data x(ACL_FLOAT16, {2});
  set_rendezvous_timeout(std::chrono::milliseconds(50));
  CHECK_THROWS(run(param, {x}), "waited in vain");
  set_rendezvous_timeout(std::chrono::seconds(60));
  int failed = 0;
  std::thread other([&] {
    infer::AllReduceParam second = param;
    second.rank = 1;
    try {
      (void)run(second, {{ACL_FLOAT16, {3}}});
    } catch (const std::exception&) {
      ++failed;
    }
  });
  try {
    (void)run(param, {x});
  } catch (const std::exception&) {
    other.join();
    ++failed;
  }
  if (other.joinable()) other.join();
  CHECK(failed == 2);
}

TEST(communication_refuses_what_atb_refuses) {
  const Devices devices(2);
  infer::AllReduceParam param;
  CHECK(create(param) == ERROR_INVALID_PARAM && says("rankSize 0"));
  param.rankSize = 2;
  CHECK(create(param) == NO_ERROR);
  param.rankTableFile = "table.json";
  CHECK(create(param) == ERROR_INVALID_PARAM && says("no rankTableFile"));
  param.rankTableFile.clear();
  param.commMode = infer::COMM_MULTI_THREAD;
  param.allReduceType = "mean";
  CHECK(create(param) == ERROR_INVALID_PARAM && says("mean"));
  param.allReduceType = "prod";
  param.backend = "lccl";
  CHECK(create(param) == ERROR_INVALID_PARAM);
  param.allReduceType = "sum";
  CHECK(create(param) == NO_ERROR);
  CHECK(run(param, {{ACL_INT64, {1}}}).status == ERROR_INVALID_TENSOR_DTYPE);
  param.commDomain = "65536";
  CHECK(create(param) == ERROR_INVALID_PARAM && says("65536"));
  param.commDomain = "3:100";
  CHECK(create(param) == NO_ERROR);
  const Soc soc("Ascend310P3");
  CHECK(create(param) == ERROR_INVALID_PARAM && says("310P"));
}

TEST(all_reduce_has_the_types_of_its_library_and_all_gather_any) {
  infer::AllReduceParam reduce;
  infer::AllGatherParam gather;
  reduce.rankSize = gather.rankSize = 1;
  const Data whole(ACL_INT64, {2}), narrow(ACL_INT32, {2}), half(ACL_FLOAT16, {2});
  CHECK(run(reduce, {whole}).status == NO_ERROR && run(gather, {whole}).status == NO_ERROR);
  reduce.allReduceType = "prod";
  for (const Data& x : {half, narrow, whole, Data(ACL_FLOAT, {2})}) CHECK(run(reduce, {x}).status == NO_ERROR);
  for (aclDataType dtype : {ACL_INT16, ACL_BF16}) {
    CHECK(run(reduce, {{dtype, {2}}}).status == ERROR_INVALID_TENSOR_DTYPE &&
          says("none of " + std::string(text(dtype))));
  }
  const Soc soc("Ascend310P3");
  for (const char* type : {"prod", "max", "min"}) {
    reduce.allReduceType = type;
    CHECK(run(reduce, {{ACL_INT16, {2}}}).status == ERROR_INVALID_TENSOR_DTYPE && says("none of int16"));
    CHECK(run(reduce, {half}).status == NO_ERROR);
  }
  reduce.allReduceType = "sum";
  CHECK(run(reduce, {{ACL_INT16, {2}}}).status == NO_ERROR);
  CHECK(run(reduce, {whole}).status == ERROR_INVALID_TENSOR_DTYPE && says("310P"));
  CHECK(run(gather, {narrow}).status == NO_ERROR && run(gather, {whole}).status == NO_ERROR);
}

TEST_MAIN()
