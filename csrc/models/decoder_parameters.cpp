// SPDX-License-Identifier: Apache-2.0
#include "models/decoder_parameters.h"

#include <algorithm>

#include "atb_core/error.h"
#include "models/parameters.h"

namespace atb_core {
namespace {

using Table = std::vector<std::vector<int64_t>>;

// Fields that choose how ATB-Models computes something and change no result here.
void accept_choices(Parameters& given) {
  for (const char* name : {"isEmbeddingParallel", "isLmHeadParallel", "supportLcoc", "enableLcoc"}) {
    given.flag(name, false);  // of no effect in one process
  }
  for (const char* name : {"backend", "rankTableFile"}) given.text(name, "");
  for (const char* name : {"attnBackend", "matmulBackend", "ropeBackend"}) given.integer(name, 0, 1, 0);
  given.integer("blockSize", 1, 1024, 128);
}

// Fields that ask for something that this decoder does not do.
void refuse_unsupported(Parameters& given) {
  given.only("isFA", Json(false), "an unpaged cache is not supported, isFA must be false");
  given.only("isUnpadInputs", Json(true), "padded inputs are not supported, isUnpadInputs must be true");
  given.only("withEmbedding", Json(true), "the embedding is part of the graph, withEmbedding must be true");
  given.only("supportSwiGLU", Json(true), "the feed-forward layer is one SWIGLU, supportSwiGLU must be true");
  given.only("enableSwiGLU", Json(true), "the feed-forward layer is one SWIGLU, enableSwiGLU must be true");
  given.only("normType", Json(int64_t{0}), "only RmsNorm, 0, is supported");
  given.only("positionEmbeddingType", Json(int64_t{0}), "only rotary positions, 0, are supported");
  given.only("rank", Json(int64_t{0}), "only one process is supported, rank must be 0");
  given.only("worldSize", Json(int64_t{1}), "only one process is supported, worldSize must be 1");
  given.only("quantGroupSize", Json(int64_t{0}), "quantised weights are not supported");
  given.only("weightQuantType", Json(std::string()), "quantised weights are not supported");
  for (const char* name :
       {"enableLogN", "enableKvQuant", "enableFA3", "enableSpeculate", "enableSplitFuse", "enablePrefixCache",
        "enableLora", "enableMC2", "enableSwigluQuant", "enableQScale", "enableGreedySearchOpt", "isLongSeq"}) {
    given.only(name, Json(false), "not supported, it must be false");
  }
}

void require_values(const std::string& name, const Table& table, std::initializer_list<int64_t> allowed,
                    const char* why) {
  for (const std::vector<int64_t>& row : table) {
    for (int64_t value : row) {
      if (std::find(allowed.begin(), allowed.end(), value) == allowed.end()) {
        fail("parameter '", name, "' has the value ", value, ": ", why);
      }
    }
  }
}

// The numbers are ATB-Models': -1 no such linear, 0 float; packs: 0 undefined, 1 all float; 1 is a weight [n, k].
void check_linears(Parameters& given, size_t layers) {
  require_values("packQuantType", given.table("packQuantType", layers, 2), {0, 1}, "only float weights are supported");
  require_values("linearQuantType", given.table("linearQuantType", layers, 7), {-1, 0},
                 "only float weights are supported");
  require_values("linearTransposeType", given.table("linearTransposeType", layers, 7), {-1, 1},
                 "weights are [n, k], 1");
  require_values("isAntiOutlier", given.table("isAntiOutlier", layers, 2), {0}, "norms with a bias are not supported");
  given.only("lmHeadTransposeType", Json(int64_t{1}), "weights are [n, k], lmHeadTransposeType must be 1");
}

DataType read_dtype(Parameters& given) {
  const bool bf16 = given.flag("isBF16", false);
  const std::string name = given.text("torchDtype", bf16 ? "bfloat16" : "float16");
  const DataType dtype = data_type_from_name(name);
  if (!is_float(dtype)) fail("parameter 'torchDtype' = '", name, "' is no floating-point type");
  if (given.has("isBF16") && bf16 != (dtype == DataType::bf16)) {
    fail("parameters 'isBF16' and 'torchDtype' = '", name, "' contradict each other");
  }
  return dtype;
}

}  // namespace

DecoderParameters DecoderParameters::from_json(const std::string& text) {
  Parameters given(text);
  DecoderParameters result;
  result.is_prefill = given.flag("isPrefill", false);
  result.dtype = read_dtype(given);
  result.float32_logits = given.flag("float32Logits", false);
  if (given.has("rmsNormEps") && given.has("normEps")) fail("give either 'rmsNormEps' or 'normEps'");
  result.epsilon = given.number(given.has("rmsNormEps") ? "rmsNormEps" : "normEps", 0.0, 1.0);
  result.layers = given.integer("numHiddenLayers", 1, 1024);
  result.heads = given.integer("numAttentionHeadsPerRank", 1, 1024);
  result.kv_heads = given.integer("numKeyValueHeadsPerRank", 1, 1024);
  result.head_dim = given.integer("hiddenSizePerAttentionHead", 2, 1024);
  result.qk_norm = given.flag("useQKNorm", false);
  if (result.heads % result.kv_heads != 0) {
    fail("parameter 'numAttentionHeadsPerRank' = ", result.heads,
         " is no multiple of 'numKeyValueHeadsPerRank' = ", result.kv_heads);
  }
  const size_t layers = static_cast<size_t>(result.layers);
  result.biases.resize(layers);
  const Table biases = given.table("linearHasBias", layers, 4);
  require_values("linearHasBias", biases, {0, 1}, "it must be true or false");
  for (size_t i = 0; i < biases.size(); ++i) {
    result.biases[i] = {biases[i][0] == 1, biases[i][1] == 1, biases[i][2] == 1, biases[i][3] == 1};
  }
  check_linears(given, layers);
  accept_choices(given);
  refuse_unsupported(given);
  given.finish();
  return result;
}

}  // namespace atb_core
