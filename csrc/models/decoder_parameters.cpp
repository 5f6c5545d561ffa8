// SPDX-License-Identifier: Apache-2.0
#include "models/decoder_parameters.h"

#include <algorithm>
#include <cstddef>
#include <iterator>

#include "atb_core/error.h"
#include "models/parameters.h"

namespace atb_core {
namespace {

using Table = std::vector<std::vector<int64_t>>;

constexpr const char* kOneProcess = "only one process is supported";

// Accepts fields that select how ATB-Models computes and that change no result here.
void accept_choices(Parameters& given) {
  for (const char* name : {"isEmbeddingParallel", "isLmHeadParallel", "supportLcoc", "enableLcoc"}) {
    given.flag(name, false);  // of no effect in one process
  }
  given.flag("enablePreFetchWeight", false);  // changes the time of a step, not its result
  for (const char* name : {"enableAddNorm", "enableIntraLayerAddNorm", "enableInterLayerAddNorm"}) {
    given.flag(name, false);  // fusions of two steps
  }
  for (const char* name :
       {"backend", "rankTableFile", "tpRankTableFile", "tpDomain", "attnTpDomain", "attnDpDomain", "mlpTpDomain"}) {
    given.text(name, "");
  }
  for (const char* name : {"attnBackend", "matmulBackend", "ropeBackend"}) given.integer(name, 0, 1, 0);
  for (const char* name : {"prevPpRank", "nextPpRank"}) given.integer(name, -1, 1 << 20, 0);
  for (const char* name : {"preFetchWeightSize", "hiddenSize"}) given.integer(name, 0, int64_t{1} << 40, 0);
  given.integer("modelConfuscationFd", -1, 1 << 20, 0);
  given.integer("blockSize", 1, 1024, 128);
}

// Checks the fields that divide the work among processes: only one process is supported.
void refuse_parallel(Parameters& given) {
  for (const char* name : {"rank", "tpRank", "tpRankRoot", "dpRank", "attnTpRank", "attnDpRank", "mlpTpRank"}) {
    given.only(name, Json(int64_t{0}), std::string(kOneProcess) + ", it must be 0");
  }
  for (const char* name : {"worldSize", "tpWorldSize", "ppGroupSize", "attnTpSize", "attnDpSize", "mlpTpSize"}) {
    given.only(name, Json(int64_t{1}), std::string(kOneProcess) + ", it must be 1");
  }
  for (const char* name : {"hasPp", "hasAttnTp", "hasAttnDp", "hasMlpTp", "layerwiseDisaggregated"}) {
    given.only(name, Json(false), std::string(kOneProcess) + ", it must be false");
  }
  for (const char* name : {"firstPpRank", "lastPpRank"}) {
    given.only(name, Json(true), std::string(kOneProcess) + ", it must be true");
  }
}

// Checks a description of groups of processes: each group may have this process only.
void check_mapping(Parameters& given) {
  const Json* mapping = given.find("mapping");
  if (!mapping || mapping->get<std::nullptr_t>()) return;
  const Json::Object* groups = mapping->get<Json::Object>();
  if (!groups) fail("parameter 'mapping' is ", mapping->kind(), " where an object is needed");
  for (const auto& [name, value] : *groups) {
    const Json::Object* group = value.get<Json::Object>();
    const auto ranks = group ? group->find("rankIds") : Json::Object::const_iterator();
    const Json::Array* list = group && ranks != group->end() ? ranks->second.get<Json::Array>() : nullptr;
    const int64_t* number = value.get<int64_t>();
    const bool many = (list && list->size() > 1) || (number && name == "worldSize" && *number != 1) ||
                      (number && name == "rank" && *number != 0);
    if (many) fail("parameter 'mapping': ", kOneProcess, ", its '", name, "' is for more");
  }
}

// Refuses fields that ask for something that this decoder does not do.
void refuse_unsupported(Parameters& given) {
  given.only("isFA", Json(false), "an unpaged cache is not supported, isFA must be false");
  given.only("isUnpadInputs", Json(true), "padded inputs are not supported, isUnpadInputs must be true");
  given.only("withEmbedding", Json(true), "the embedding is part of the graph, withEmbedding must be true");
  given.only("skipWordEmbedding", Json(false), "the embedding is part of the graph, skipWordEmbedding must be false");
  given.only("supportSwiGLU", Json(true), "the feed-forward layer is one SWIGLU, supportSwiGLU must be true");
  given.only("enableSwiGLU", Json(true), "the feed-forward layer is one SWIGLU, enableSwiGLU must be true");
  given.only("normType", Json(int64_t{0}), "only RmsNorm, 0, is supported");
  given.only("positionEmbeddingType", Json(int64_t{0}), "only rotary positions, 0, are supported");
  given.only("quantGroupSize", Json(int64_t{0}), "quantised weights are not supported, it must be 0");
  given.only("isYarn", Json(false), "the tables of positions are inputs, give those of YaRN; isYarn must be false");
  given.only("mscale", Json(1.0), "the tables of positions are inputs, multiply them; mscale must be 1");
  const Json* quantised = given.find("weightQuantType");
  if (quantised && !quantised->get<std::nullptr_t>()) {
    given.only("weightQuantType", Json(std::string()), "quantised weights are not supported, it must be empty");
  }
  for (const char* name : {"enableLogN",
                           "enableKvQuant",
                           "enableFA3",
                           "enableSpeculate",
                           "enableSplitFuse",
                           "enablePrefixCache",
                           "enableLora",
                           "loraEnableGMM",
                           "enableMC2",
                           "enableSwigluQuant",
                           "enableReduceQuant",
                           "enableQScale",
                           "enableGreedySearchOpt",
                           "isLongSeq",
                           "enableCompressHead",
                           "enableOmniAttention",
                           "enableRopeQuantKvcache",
                           "enableModelConfuscation",
                           "enableDap",
                           "enableCVOverlap",
                           "enableFlashComm",
                           "isEdgeHardware"}) {
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

// Numbers of ATB-Models: -1 no such linear, 0 float; packs: 0 undefined, 1 all float; 1 for a weight [n, k].
void check_linears(Parameters& given, size_t layers) {
  require_values("packQuantType", given.table("packQuantType", layers, 2), {0, 1}, "only float weights are supported");
  require_values("linearQuantType", given.table("linearQuantType", layers, 7), {-1, 0},
                 "only float weights are supported");
  require_values("linearDescs", given.table("linearDescs", layers, 7), {-1, 0, 1},
                 "only float weights are supported: -1 none, 0 float16, 1 bfloat16");
  require_values("linearTransposeType", given.table("linearTransposeType", layers, 7), {-1, 1},
                 "weights are [n, k], 1");
  require_values("isAntiOutlier", given.table("isAntiOutlier", layers, 2), {0}, "norms with a bias are not supported");
  given.only("lmHeadTransposeType", Json(int64_t{1}), "weights are [n, k], lmHeadTransposeType must be 1");
}

DataType read_dtype(Parameters& given) {
  const bool bf16 = given.flag("isBF16", false);
  const std::string name = given.text("torchDtype", bf16 ? "bfloat16" : "float16");
  const DataType kinds[] = {DataType::f32, DataType::f16, DataType::bf16};
  const auto found =
      std::find_if(std::begin(kinds), std::end(kinds), [&](DataType kind) { return atb_core::name(kind) == name; });
  if (found == std::end(kinds)) {
    fail("parameter 'torchDtype' = '", name, "' must be 'float32', 'float16' or 'bfloat16'");
  }
  const DataType dtype = *found;
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
  result.int8_cache = given.flag("int8KvCache", false);
  result.packed_cache = given.flag("packedKvCache", false);
  if (result.int8_cache && result.packed_cache) fail("'packedKvCache' does not go with 'int8KvCache'");
  if (given.has("rmsNormEps") && given.has("normEps")) fail("give either 'rmsNormEps' or 'normEps'");
  result.epsilon = given.number(given.has("rmsNormEps") ? "rmsNormEps" : "normEps", 0.0, 1.0);
  result.layers = given.integer("numHiddenLayers", 1, 1024);
  result.heads = given.integer("numAttentionHeadsPerRank", 1, 1024);
  result.kv_heads = given.integer("numKeyValueHeadsPerRank", 1, 1024);
  result.head_dim = given.integer("hiddenSizePerAttentionHead", 2, 1024);
  if (result.head_dim % 2 != 0) {
    fail("parameter 'hiddenSizePerAttentionHead' = ", result.head_dim,
         " must be even: rotary positions turn the two halves of a head");
  }
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
  refuse_parallel(given);
  check_mapping(given);
  refuse_unsupported(given);
  given.finish();
  return result;
}

}  // namespace atb_core
