// SPDX-License-Identifier: Apache-2.0
// The decoder that C++ builds on the simulated device: its constants, refusals, interruptions, and missing weights.
#include "decoder_steps.h"

using namespace atb_core;
using namespace atb_core::test;

namespace {

// A model on the device that has run a step, and the step's inputs with and without its tables.
struct Ready {
  Ready() : without(step.inputs()), constants(without.size()) {
    decoder.engine().set_caches(caches.keys, caches.values);
    expected = step.run(decoder);
    for (size_t table : {Step::kCosines, Step::kSines}) std::swap(without[table], constants[table]);
  }
  std::shared_ptr<DeviceWeights> weights = std::make_shared<DeviceWeights>(device_with());
  Decoder decoder{std::make_shared<ascend::DeviceGraphBackend>(weights)};
  Caches caches{weights->device().get()};
  Step step{true};
  std::vector<TensorView> without, constants;
  Halves expected;
};

}  // namespace

TEST(constants_stay_until_a_step_brings_them_and_are_taken_all_or_none) {
  Ready ready;
  Decoder& decoder = ready.decoder;
  CHECK_THROWS(Step::run(decoder, ready.without), "input 2, 'cosine_table', is missing");
  decoder.engine().set_constants(ready.constants);
  CHECK(Step::run(decoder, ready.without) == ready.expected);
  {
    Real wrong = some({8, kHead}, 7), right = some({8, kHead}, 8);
    std::vector<TensorView> given(ready.without.size());
    given[Step::kCosines] = right.view();
    given[Step::kSines] = wrong.view();
    given[Step::kSines].dtype = DataType::f32;
    CHECK_THROWS(decoder.engine().set_constants(given), "input 3, 'sine_table', is float32 where float16 is needed");
  }
  CHECK(Step::run(decoder, ready.without) == ready.expected);
}

TEST(nothing_is_looked_at_that_a_failed_step_has_brought) {
  Ready ready;
  Decoder& decoder = ready.decoder;
  decoder.engine().set_constants(ready.constants);
  {
    Step gone(true);  // its memory ends here
    Real out = real(DataType::f16, {1, kWords + 1}, Halves(kWords + 1));
    CHECK_THROWS(decoder.model().Execute(gone.inputs(), {out.view()}, "{}"), "'model_out' has shape");
    std::vector<TensorView> wrong = gone.inputs();
    wrong[6].shape[0] = 2;
    CHECK_THROWS(decoder.engine().output_shapes(wrong), "slots_mapping");
  }
  CHECK_THROWS(Step::run(decoder, ready.without), "'cosine_table', is missing");
  CHECK(ready.step.run(decoder) == ready.expected);
}

TEST(a_call_that_is_refused_leaves_what_was_there) {
  const auto weights = std::make_shared<DeviceWeights>(device_with());
  Decoder decoder(std::make_shared<ascend::DeviceGraphBackend>(weights));
  Step step(true);
  CHECK_THROWS(step.run(decoder), "is missing");
  Caches caches(weights->device().get()), few(weights->device().get());
  decoder.engine().set_caches(caches.keys, caches.values);
  const Halves expected = step.run(decoder);
  few.values.pop_back();
  CHECK_THROWS(decoder.engine().set_caches(few.keys, few.values), "2 key caches and 1 value caches were given");
  few.values.push_back(few.keys[0]);
  few.values[1].dtype = DataType::f32;
  CHECK_THROWS(decoder.engine().set_caches(few.keys, few.values), "is float32 where float16 is needed");
  CHECK_THROWS(decoder.set_weights(true), "build the graph again first");
  CHECK_THROWS(decoder.engine().set_weights({}), "0 weights were given");
  CHECK_THROWS(decoder.engine().declare_weights({"one"}, {}), "1 names were given for 0 weights");
  CHECK_THROWS(decoder.model().Execute({}, {}, "{}"), "0 inputs were given where 12 are needed");
  CHECK(step.run(decoder) == expected);
}

TEST(a_step_can_be_interrupted_between_layers) {
  const auto weights = std::make_shared<DeviceWeights>(device_with());
  Decoder decoder(std::make_shared<ascend::DeviceGraphBackend>(weights));
  Caches caches(weights->device().get());
  decoder.engine().set_caches(caches.keys, caches.values);
  Step step(true);
  const Halves expected = step.run(decoder);
  int asked = 0;
  decoder.engine().interrupted = [&] { return ++asked == 2; };
  CHECK_THROWS(step.run(decoder), "the step was interrupted");
  decoder.engine().interrupted = nullptr;
  CHECK(step.run(decoder) == expected && asked == 2);
}

TEST(a_model_without_weights_says_so) {
  const auto model = ModelFactory::instance().create("core_DecoderModel", parameters(true));
  auto engine = std::make_unique<GraphModelEngine>(on_device());
  GraphModelEngine& made = *engine;
  model->Init(std::move(engine));
  CHECK(made.input_names().size() == 12 && made.input_names()[0] == "input_ids");
  CHECK_THROWS(made.set_caches({}, {}), "set the weights before the caches");
  CHECK_THROWS(made.set_constants({}), "the model has no weights yet");
  GraphModelEngine other(on_device());
  CHECK_THROWS(made.share_weights(other), "has none yet");
}

TEST_MAIN()
