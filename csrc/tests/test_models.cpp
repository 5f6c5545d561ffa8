// SPDX-License-Identifier: Apache-2.0
// Parameters and registration of models: JSON, its fields, those of the decoder, and models by name.
#include <filesystem>
#include <fstream>

#include "check.h"
#include "models/decoder_model.h"
#include "models/json.h"
#include "models/model_factory.h"
#include "models/parameters.h"

namespace atb_core::test {
namespace {

double number(const char* text) {
  const Json value = Json::parse(text);
  return value.get<double>() ? *value.get<double>() : -1.0;
}

std::string string(const std::string& text) {
  const Json value = Json::parse(text);
  return value.get<std::string>() ? *value.get<std::string>() : "no string";
}

// The required parameters of a decoder, followed by those in `more`.
DecoderParameters decoder(const std::string& more = "") {
  return DecoderParameters::from_json(R"({"normEps": 1e-6, "numHiddenLayers": 2, "numAttentionHeadsPerRank": 4,
    "numKeyValueHeadsPerRank": 2, "hiddenSizePerAttentionHead": 16)" +
                                      std::string(more.empty() ? "" : ", ").append(more) + "}");
}

// A field with the value 1. GCC 12 warns falsely (-Wrestrict) where a literal stands before a temporary string.
std::string one(const std::string& name) { return std::string("\"").append(name).append("\": 1"); }

class Empty : public Model {
 public:
  Empty() : Model("Empty") {}

 protected:
  void BuildGraph(ModelGraph&) override {}
};

ModelRegistration empty_model(const std::string& name) {
  return {name, [](const std::string&) { return std::make_shared<Empty>(); }};
}

bool known(const std::string& name) {
  const std::vector<std::string> names = ModelFactory::instance().names();
  return std::find(names.begin(), names.end(), name) != names.end();
}

}  // namespace

TEST(json_values_are_read_by_kind) {
  const Json value = Json::parse(R"( {"a": [1, -2.5e1, true, null, "x"], "b": {}} )");
  const Json::Array& list = *value.get<Json::Object>()->at("a").get<Json::Array>();
  CHECK(*list[0].get<int64_t>() == 1);
  CHECK(*list[1].get<double>() == -25.0);
  CHECK(*list[2].get<bool>());
  CHECK(std::string(list[3].kind()) == "null");
  CHECK(*list[4].get<std::string>() == "x");
  CHECK(value.get<Json::Object>()->at("b").get<Json::Object>()->empty());
}

TEST(a_number_needs_a_digit_before_and_after_its_point) {
  for (const char* text : {"1.", "0.e-6", "-3.", "1.e5"}) CHECK_THROWS(Json::parse(text), "a digit is expected after");
  for (const char* text : {".5", "+1", "-", "01", "-01.5", ""}) CHECK_THROWS(Json::parse(text), "a value is expected");
  for (const char* text : {"1e", "1.5.2", "1e+", "1-2"}) CHECK_THROWS(Json::parse(text), "a number is expected");
  CHECK(number("0.0") == 0.0);
  CHECK(number("1E+2") == 100.0);
  CHECK(number("-0.5e-1") == -0.05);
}

TEST(a_number_too_close_to_zero_is_zero_and_one_too_large_is_refused) {
  for (const char* text : {"1e-400", "-1e-400", "0.001e-399", "12345e-99999999999999999999"})
    CHECK(number(text) == 0.0);
  CHECK(number(std::string("0.").append(400, '0').append("1").c_str()) == 0.0);
  const std::string large = std::string("1").append(400, '0');
  for (const std::string& text : {std::string("1e400"), std::string("-1e400"), large + ".5", large + "e-20",
                                  std::string("99999999999999999999"), std::string("1e99999999999999999999")}) {
    CHECK_THROWS(Json::parse(text), "the number is too large");
  }
  CHECK(number((large + "e-400").c_str()) == 1.0);
}

TEST(what_is_not_finite_is_refused_and_says_so) {
  for (const char* text : {"NaN", "Infinity", "-Infinity"}) {
    CHECK_THROWS(Json::parse(std::string(R"({"normEps": )") + text + "}"), "numbers must be finite");
  }
}

TEST(escapes_of_characters_become_utf_8) {
  CHECK(string(R"("\u0041\n\/\"")") == "A\n/\"");
  CHECK(string(R"("\u00e9\u4E2d")") == "\xc3\xa9\xe4\xb8\xad");
  CHECK(string(R"("\ud83d\ude00!")") == "\xf0\x9f\x98\x80!");
  CHECK(string(R"("\u0000")") == std::string(1, '\0'));
  for (const char* text : {R"("\ud83d")", R"("\ud83dx")", R"("\ude00")", R"("\ud83d\u0041")", R"("\ud83d\n")"}) {
    CHECK_THROWS(Json::parse(text), "half of a pair");
  }
  for (const char* text : {R"("\u12")", R"("\u12g4")", R"("\u")", R"("\u-123")", "\"\\u"}) {
    CHECK_THROWS(Json::parse(text), "four hexadecimal digits");
  }
  CHECK_THROWS(Json::parse(R"("\x")"), "an escape that JSON does not have");
  CHECK_THROWS(Json::parse("\"a\nb\""), "a control character");
  CHECK_THROWS(Json::parse("\"a"), "a string does not end");
}

TEST(text_that_is_not_one_json_value_says_where) {
  CHECK_THROWS(Json::parse("{} {}"), "JSON, character 4: something follows");
  CHECK_THROWS(Json::parse(R"({"a": 1, "a": 2})"), "the key 'a' occurs twice");
  CHECK_THROWS(Json::parse("[1 2]"), "',' or ']' is expected");
  CHECK_THROWS(Json::parse("[1,]"), "a value is expected");
  CHECK_THROWS(Json::parse("{1: 2}"), "a key in quotes");
  CHECK_THROWS(Json::parse(std::string(18, '[')), "nested too deeply");
  CHECK_THROWS(Json::parse(std::string(200'001, ' ')), "at most 200000");
}

TEST(a_field_of_the_wrong_kind_or_out_of_range_is_named) {
  Parameters given(R"({"flag": 1, "whole": 2.5, "high": 9, "text": [], "eps": "x", "rows": [[1], [1, 2]]})");
  CHECK_THROWS(given.flag("flag", false), "parameter 'flag' is an integer where true or false is needed");
  CHECK_THROWS(given.integer("whole", 0, 3), "parameter 'whole' is a number where an integer is needed");
  CHECK_THROWS(given.integer("high", 0, 3), "parameter 'high' = 9 must be from 0 to 3");
  CHECK_THROWS(given.integer("absent", 0, 3), "parameter 'absent' is missing");
  CHECK_THROWS(given.text("text", ""), "parameter 'text' is a list where a string is needed");
  CHECK_THROWS(given.number("eps", 0, 1), "parameter 'eps' is a string where a number is needed");
  CHECK_THROWS(given.table("rows", 2, 1), "parameter 'rows' has a list of 2 where 1 are needed");
  CHECK_THROWS(given.table("rows", 3, 1), "parameter 'rows' has 2 lists where 3, or one for all, are needed");
  CHECK_THROWS(Parameters("[]"), "the parameters are a list where an object is needed");
}

TEST(a_field_that_may_have_one_value_only_has_it_as_any_kind_of_number) {
  Parameters given(R"({"one": 1, "point": 1.0, "two": 2})");
  given.only("one", Json(1.0), "why");
  given.only("point", Json(int64_t{1}), "why");
  given.only("absent", Json(false), "why");
  CHECK_THROWS(given.only("two", Json(1.0), "it must be 1"), "parameter 'two': it must be 1");
  CHECK_THROWS(given.only("one", Json(true), "it must be true"), "parameter 'one': it must be true");
}

TEST(an_unknown_field_is_named_with_the_one_that_it_resembles) {
  CHECK_THROWS(decoder(R"("numHidenLayers": 2)"), "'numHidenLayers' (is 'numHiddenLayers' meant?)");
  CHECK_THROWS(decoder(R"("isprefill": true)"), "'isprefill' (is 'isPrefill' meant?)");
  CHECK_THROWS(decoder(R"("colour": 1)"), "unknown parameters: 'colour'; docs/cpp-models.md lists");
  CHECK_THROWS(decoder(one(std::string(90'000, 'a'))), "unknown parameters: 'aaa");
}

TEST(the_fewest_parameters_describe_a_decoder) {
  const DecoderParameters small = decoder();
  CHECK(!small.is_prefill && !small.qk_norm && small.dtype == DataType::f16 && small.epsilon == 1e-6);
  CHECK(small.layers == 2 && small.heads == 4 && small.kv_heads == 2 && small.head_dim == 16);
  CHECK(small.biases.size() == 2 && !small.biases[1].qkv);
  const DecoderParameters biased = decoder(R"("linearHasBias": [[true, false, false, true]], "isBF16": true)");
  CHECK(biased.biases[1].qkv && biased.biases[1].down && !biased.biases[1].dense);
  CHECK(biased.dtype == DataType::bf16);
}

TEST(fields_of_upstream_are_accepted_where_they_ask_for_nothing_special) {
  decoder(R"("isFA": false, "isUnpadInputs": true, "normType": 0, "lmHeadTransposeType": 1, "backend": "lccl",
    "rank": 0, "worldSize": 1, "packQuantType": [[1, 1]], "linearQuantType": [[0, -1, -1, 0, 0, -1, 0]],
    "linearTransposeType": [[1, -1, -1, 1, 1, -1, 1]], "linearDescs": [[1, -1, -1, 1, 1, -1, 1]],
    "loraEnableGMM": false, "isYarn": false, "mscale": 1, "weightQuantType": "", "quantGroupSize": 0,
    "hasPp": false, "ppGroupSize": 1, "firstPpRank": true, "lastPpRank": true, "prevPpRank": 0, "nextPpRank": 0,
    "tpRank": 0, "tpWorldSize": 1, "tpRankRoot": 0, "tpDomain": "tp_0", "tpRankTableFile": "", "dpRank": 0,
    "hasAttnTp": false, "attnTpRank": 0, "attnTpSize": 1, "attnTpDomain": "", "hasAttnDp": false, "attnDpRank": 0,
    "attnDpSize": 1, "attnDpDomain": "", "hasMlpTp": false, "mlpTpRank": 0, "mlpTpSize": 1, "mlpTpDomain": "",
    "enableAddNorm": true, "skipWordEmbedding": false, "preFetchWeightSize": 0, "hiddenSize": 64, "blockSize": 128,
    "mapping": {"worldSize": 1, "rank": 0, "rankTableFile": "", "attnTp": {"groupId": 0, "rankIds": [0]}})");
  decoder(R"("mapping": null, "weightQuantType": null, "mscale": 1.0)");
}

TEST(fields_of_upstream_are_refused_with_a_reason_where_they_ask_for_more) {
  CHECK_THROWS(decoder(R"("linearDescs": [[4, -1, -1, 0, 0, -1, 0]])"), "'linearDescs' has the value 4: only float");
  CHECK_THROWS(decoder(R"("loraEnableGMM": true)"), "'loraEnableGMM': not supported");
  CHECK_THROWS(decoder(R"("isYarn": true)"), "'isYarn': the tables of positions are inputs");
  CHECK_THROWS(decoder(R"("mscale": 1.14)"), "'mscale': the tables of positions are inputs");
  CHECK_THROWS(decoder(R"("weightQuantType": "w8a8")"), "'weightQuantType': quantised weights");
  CHECK_THROWS(decoder(R"("hasPp": true)"), "'hasPp': only one process is supported, it must be false");
  CHECK_THROWS(decoder(R"("ppGroupSize": 2)"), "'ppGroupSize': only one process is supported, it must be 1");
  CHECK_THROWS(decoder(R"("firstPpRank": false)"), "'firstPpRank': only one process is supported, it must be true");
  for (const char* name : {"tpRank", "attnDpRank", "dpRank"}) {
    CHECK_THROWS(decoder(one(name)), std::string(name) + "': only one process");
  }
  CHECK_THROWS(decoder(R"("mapping": {"worldSize": 2})"), "'mapping': only one process is supported, its 'worldSize'");
  CHECK_THROWS(decoder(R"("mapping": {"attnTp": {"rankIds": [0, 1]}})"), "its 'attnTp' is for more");
  CHECK_THROWS(decoder(R"("mapping": 3)"), "'mapping' is an integer where an object is needed");
}

TEST(errors_of_the_decoders_fields_name_them) {
  CHECK_THROWS(decoder(R"("torchDtype": "float64")"),
               "parameter 'torchDtype' = 'float64' must be 'float32', 'float16'");
  CHECK_THROWS(decoder(R"("torchDtype": "int8")"), "parameter 'torchDtype' = 'int8' must be");
  CHECK_THROWS(decoder(R"("torchDtype": "float16", "isBF16": true)"), "'isBF16' and 'torchDtype' = 'float16'");
  CHECK_THROWS(decoder(R"("rmsNormEps": 1e-6)"), "give either 'rmsNormEps' or 'normEps'");
  CHECK_THROWS(DecoderParameters::from_json(R"({"normEps": 1, "numHiddenLayers": 1, "numAttentionHeadsPerRank": 1,
    "numKeyValueHeadsPerRank": 1, "hiddenSizePerAttentionHead": 15})"),
               "parameter 'hiddenSizePerAttentionHead' = 15 must be even");
  CHECK_THROWS(DecoderParameters::from_json(R"({"normEps": 1, "numHiddenLayers": 1, "numAttentionHeadsPerRank": 3,
    "numKeyValueHeadsPerRank": 2, "hiddenSizePerAttentionHead": 16})"),
               "'numAttentionHeadsPerRank' = 3 is no multiple of 'numKeyValueHeadsPerRank' = 2");
}

TEST(the_decoder_is_there_by_name_and_records_its_graph) {
  const std::shared_ptr<Model> model = ModelFactory::instance().create(
      "core_DecoderModel", R"({"normEps": 1e-6, "numHiddenLayers": 1, "numAttentionHeadsPerRank": 4,
      "numKeyValueHeadsPerRank": 2, "hiddenSizePerAttentionHead": 16})");
  CHECK(model->name() == "DecoderModel");
  CHECK(model->graph().nodes().empty());
  CHECK_THROWS(ModelFactory::instance().create("nobody", "{}"), "no C++ model is called 'nobody'; there are core_");
}

TEST(models_are_added_together_or_not_at_all) {
  ModelFactory& factory = ModelFactory::instance();
  factory.add({empty_model("first_Model")}, "one.so");
  for (int i = 0; i < 2; ++i) {
    CHECK_THROWS(factory.add({empty_model("fresh_Model"), empty_model("first_Model")}, "two.so"),
                 "the model 'first_Model' of two.so is already registered by one.so");
  }
  CHECK_THROWS(factory.add({empty_model("fresh_Model"), empty_model("fresh_Model")}, "two.so"), "two.so registers the");
  CHECK_THROWS(factory.add({empty_model("fresh_Model")}, "two.so", {{"fresh_Model", "the package atb-foo"}}),
               "already registered by the package atb-foo");
  CHECK_THROWS(factory.add({{"fresh_Model", nullptr}}, "two.so"), "a model of two.so has no creator");
  CHECK_THROWS(factory.add({empty_model("")}, "two.so"), "a model of two.so has no name");
  CHECK(known("first_Model") && !known("fresh_Model"));
}

TEST(a_creator_that_gives_no_model_is_told) {
  ModelFactory::instance().add({{"null_Model", [](const std::string&) { return nullptr; }}}, "one.so");
  CHECK_THROWS(ModelFactory::instance().create("null_Model", "{}"), "the creator of the model 'null_Model' gives none");
}

TEST(a_path_that_leads_to_no_library_is_named) {
  ModelFactory& factory = ModelFactory::instance();
  CHECK_THROWS(factory.load_library(""), "the path of the library is empty");
  CHECK_THROWS(factory.load_library("/tmp"), "/tmp is a folder, not a library");
  CHECK_THROWS(factory.load_library("/nowhere/models.so"), "cannot load /nowhere/models.so: ");
  const std::filesystem::path file = std::filesystem::temp_directory_path() / "atb_test_models_text.so";
  std::ofstream(file) << "no library";
  CHECK_THROWS(factory.load_library(file), "cannot load " + file.string());
  std::filesystem::remove(file);
}

}  // namespace atb_core::test

TEST_MAIN()
