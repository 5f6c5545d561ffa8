// SPDX-License-Identifier: Apache-2.0
// The host simulator's ReshapeAndCache: slots, layouts of caches, limits.
#include "sim_ops.h"

using namespace atb_core::test;

TEST(reshape_and_cache_writes_the_slots_it_is_given_and_skips_negative_ones) {
  const Values keys = some(3 * 2 * 16), values = some(3 * 2 * 16, 2);
  const Data k(ACL_FLOAT16, {3, 2, 16}, keys), v(ACL_FLOAT16, {3, 2, 16}, values), slots(ACL_INT32, {3}, {17, -1, 2});
  const Data cache(ACL_FLOAT16, {2, 16, 2, 16}, filled(2 * 16 * 32, 9.0));
  const Result result = run(infer::ReshapeAndCacheParam{}, {k, v, cache, cache, slots});
  Values expected = filled(2 * 16 * 32, 9.0);
  for (size_t c = 0; c < 32; ++c) {
    expected[17 * 32 + c] = keys[c];
    expected[2 * 32 + c] = keys[64 + c];
  }
  CHECK(close(result.out[0].values(), expected));
  const Data nz(ACL_FLOAT16, {2, 2, 16, 16}, filled(2 * 16 * 32, 9.0), ACL_FORMAT_FRACTAL_NZ);
  infer::ReshapeAndCacheParam param;
  param.kvCacheCfg = infer::ReshapeAndCacheParam::K_CACHE_V_CACHE_NZ;
  const Values fractals = run(param, {k, v, nz, nz, slots}).out[1].values();
  CHECK(close(slice_of(fractals, (2 + 1) * 256 + 16, 16), slice_of(values, 16, 16)));  // block 1, head 1, place 1
  CHECK(close(slice_of(fractals, 256 + 2 * 16, 16), slice_of(values, 64 + 16, 16)));   // block 0, head 1, place 2
  CHECK_THROWS(run(infer::ReshapeAndCacheParam{}, {k, v, cache, cache, {ACL_INT32, {3}, {0, 1, 32}}}), "slot 32");
  const Data fractal_format(ACL_FLOAT16, {2, 16, 2, 16}, {}, ACL_FORMAT_FRACTAL_NZ);
  CHECK(run(infer::ReshapeAndCacheParam{}, {k, v, cache, fractal_format, slots}).status ==
        ERROR_INVALID_TENSOR_INI_MATCH);
  CHECK(run(infer::ReshapeAndCacheParam{}, {k, v, cache, cache, {ACL_INT32, {2}}}).status == ERROR_INVALID_TENSOR_DIM);
  infer::ReshapeAndCacheParam keys_only;
  keys_only.kvCacheCfg = infer::ReshapeAndCacheParam::K_CACHE_V_BYPASS;
  CHECK(close(run(keys_only, {k, cache, slots}).out[0].values(), expected));
  const Soc soc("Ascend310P3");
  CHECK(run(infer::ReshapeAndCacheParam{}, {k, v, nz, nz, slots}).status == NO_ERROR);
  CHECK(run(infer::ReshapeAndCacheParam{}, {k, v, cache, cache, slots}).status != NO_ERROR);
}

TEST(reshape_and_cache_takes_as_many_heads_of_keys_as_of_values) {
  const auto status = [](int64_t heads) {
    const Data k(ACL_FLOAT16, {1, 2, 16}), v(ACL_FLOAT16, {1, heads, 16});
    return run(infer::ReshapeAndCacheParam{},
               {k, v, {ACL_FLOAT16, {2, 16, 2, 16}}, {ACL_FLOAT16, {2, 16, heads, 16}}, {ACL_INT32, {1}, {3}}})
        .status;
  };
  CHECK(status(2) == NO_ERROR);
  CHECK(status(1) == ERROR_INVALID_TENSOR_DIM && says("as many heads"));
}

TEST(caches_in_fractals_on_910b_mix_types_of_keys_but_values_are_no_int8) {
  infer::ReshapeAndCacheParam param;
  param.kvCacheCfg = infer::ReshapeAndCacheParam::K_CACHE_V_CACHE_NZ;
  const auto status = [&](aclDataType key, aclDataType value, aclFormat format = ACL_FORMAT_FRACTAL_NZ) {
    const auto cache = [&](aclDataType dtype) {
      const int64_t lanes = dtype == ACL_INT8 ? 32 : 16;
      return Data(dtype, {1, 64 / lanes, 16, lanes}, {}, format);
    };
    return run(param, {{key, {1, 2, 32}}, {value, {1, 2, 32}}, cache(key), cache(value), {ACL_INT32, {1}, {3}}}).status;
  };
  for (aclDataType value : {ACL_FLOAT16, ACL_BF16}) {
    for (aclDataType key : {ACL_FLOAT16, ACL_BF16, ACL_INT8}) CHECK(status(key, value) == NO_ERROR);
  }
  CHECK(status(ACL_INT8, ACL_INT8) == ERROR_INVALID_TENSOR_INI_MATCH && says("int8"));
  CHECK(status(ACL_FLOAT16, ACL_FLOAT16, ACL_FORMAT_ND) == ERROR_INVALID_TENSOR_INI_MATCH);
}

TEST(reshape_and_cache_on_310p_takes_heads_of_one_size_in_steps_of_16) {
  const Data slots(ACL_INT32, {1}, {3});
  const auto status = [&](aclDataType dtype, int64_t key, int64_t value) {
    const int64_t lanes = dtype == ACL_INT8 ? 32 : 16;
    const auto cache = [&](int64_t head) {
      return Data(dtype, {1, 2 * head / lanes, 16, lanes}, {}, ACL_FORMAT_FRACTAL_NZ);
    };
    infer::ReshapeAndCacheParam param;
    if (soc() != "Ascend310P3") param.kvCacheCfg = infer::ReshapeAndCacheParam::K_CACHE_V_CACHE_NZ;
    return run(param, {{dtype, {1, 2, key}}, {dtype, {1, 2, value}}, cache(key), cache(value), slots}).status;
  };
  CHECK(status(ACL_FLOAT16, 32, 16) == NO_ERROR);
  CHECK(status(ACL_FLOAT16, 24, 24) == NO_ERROR);
  const Soc duo("Ascend310P3");
  CHECK(status(ACL_FLOAT16, 32, 32) == NO_ERROR);
  CHECK(status(ACL_INT8, 32, 32) == NO_ERROR);
  CHECK(status(ACL_FLOAT16, 32, 16) == ERROR_INVALID_TENSOR_DIM && says("32 and 16"));
  CHECK(status(ACL_FLOAT16, 24, 24) == ERROR_INVALID_TENSOR_DIM && says("multiple of 16"));
}

TEST_MAIN()
