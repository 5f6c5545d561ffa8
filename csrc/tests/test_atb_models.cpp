// SPDX-License-Identifier: Apache-2.0
// The decoder that C++ builds, on the processor and on the simulated device, and the tensors that it keeps.
#include <cmath>
#include <deque>
#include <map>

#include "atb/graph_backend.h"
#include "atb_device.h"
#include "cpu/engine/graph_backend.h"
#include "models/graph_model_engine.h"
#include "models/model_factory.h"

using namespace atb_core;
using namespace atb_core::test;

namespace {

constexpr int64_t kHeads = 4, kKvHeads = 2, kHead = 16, kHidden = 32, kInner = 48, kWords = 64, kSlots = 16;
constexpr int kLayers = 2;

std::string parameters(bool prefill) {
  return std::string(R"({"normEps": 1e-6, "numHiddenLayers": 2, "numAttentionHeadsPerRank": 4,
    "numKeyValueHeadsPerRank": 2, "hiddenSizePerAttentionHead": 16, "useQKNorm": true,
    "linearHasBias": [[true, true, true, true]], "isPrefill": )") +
         (prefill ? "true}" : "false}");
}

// Tensor that owns its memory.
struct Real {
  DataType dtype;
  Ints shape;
  std::vector<std::byte> data;
  TensorView view() {
    TensorView view;
    view.data = data.data();
    view.dtype = dtype;
    view.rank = static_cast<int>(shape.size());
    std::copy(shape.begin(), shape.end(), view.shape);
    return view;
  }
};

template <typename T>
Real real(DataType dtype, Ints shape, const std::vector<T>& values) {
  const auto* bytes = reinterpret_cast<const std::byte*>(values.data());
  return {dtype, std::move(shape), {bytes, bytes + values.size() * sizeof(T)}};
}

// Halves between -0.5 and 0.5 without a pattern.
Real some(Ints shape, size_t seed) {
  Halves values;
  size_t count = 1;
  for (int64_t size : shape) count *= static_cast<size_t>(size);
  for (size_t i = 0; i < count; ++i) {
    const uint32_t bits = static_cast<uint32_t>((i + seed * 977) * 2654435761u);
    values.push_back(static_cast<uint16_t>(0x2800 | (bits >> 8 & 0x0FFF) | (bits >> 4 & 0x8000)));
  }
  return real(DataType::f16, std::move(shape), values);
}

std::shared_ptr<GraphBackend> on_processor() {
  return std::make_shared<CpuGraphBackend>(std::make_shared<WeightStore>(make_runtime()));
}
std::shared_ptr<GraphBackend> on_device() {
  return std::make_shared<ascend::DeviceGraphBackend>(std::make_shared<DeviceWeights>(device_with()));
}

// Model with its own weights or those of another model.
class Decoder {
 public:
  explicit Decoder(std::shared_ptr<GraphBackend> backend, bool prefill = true, GraphModelEngine* weights_of = nullptr)
      : model_(ModelFactory::instance().create("core_DecoderModel", parameters(prefill))) {
    auto engine = std::make_unique<GraphModelEngine>(std::move(backend));
    engine_ = engine.get();
    model_->Init(std::move(engine));
    if (weights_of == nullptr) {
      set_weights();
    } else {
      engine_->share_weights(*weights_of);
    }
  }

  GraphModelEngine& engine() { return *engine_; }
  Model& model() { return *model_; }

  void set_weights(bool tied = false) {
    const std::map<std::string, Ints> shapes = {{"embed_tokens", {kWords, kHidden}},
                                                {"lm_head", {kWords, kHidden}},
                                                {"qkv.weight", {(kHeads + 2 * kKvHeads) * kHead, kHidden}},
                                                {"qkv.bias", {(kHeads + 2 * kKvHeads) * kHead}},
                                                {"q_norm", {kHead}},
                                                {"k_norm", {kHead}},
                                                {"dense.weight", {kHidden, kHeads * kHead}},
                                                {"gate_up.weight", {2 * kInner, kHidden}},
                                                {"gate_up.bias", {2 * kInner}},
                                                {"down.weight", {kHidden, kInner}}};
    std::vector<TensorView> views;
    size_t seed = 0;
    for (const ModelGraph::Tensor& tensor : model_->graph().tensors()) {
      if (tensor.role != Role::weight) continue;
      Ints shape = {kHidden};
      for (const auto& [end, size] : shapes) {
        if (tensor.name.ends_with(end)) shape = size;
      }
      if (tied && tensor.name == "lm_head") {
        views.push_back(views.front());
        continue;
      }
      views.push_back(weights_.emplace_back(some(shape, ++seed)).view());
    }
    engine_->set_weights(views);
  }

 private:
  std::shared_ptr<Model> model_;
  GraphModelEngine* engine_;
  std::deque<Real> weights_;
};

// Caches in the memory that the backend requires.
class Caches {
 public:
  explicit Caches(Device* device) {
    const Ints shape = {1, kSlots, kKvHeads, kHead};
    for (int i = 0; i < 2 * kLayers; ++i) {
      TensorView view = host_.emplace_back(some(shape, 99)).view();
      if (device != nullptr) {
        const auto lease = device->lease();
        view.data = there_.emplace_back(device->allocate(view.bytes(), "a cache")).data();
        view.on_device = true;
      }
      (i < kLayers ? keys : values).push_back(view);
    }
  }
  std::vector<TensorView> keys, values;

 private:
  std::deque<Real> host_;
  std::deque<ascend::DeviceMemory> there_;
};

// A prompt of three tokens, or the token after it.
struct Step {
  explicit Step(bool prefill) {
    const auto tokens = prefill ? std::vector<int64_t>{5, 9, 11} : std::vector<int64_t>{3};
    const auto count = static_cast<int64_t>(tokens.size()), first = prefill ? int64_t{0} : int64_t{3};
    std::vector<int64_t> places;
    std::vector<int32_t> slots;
    for (int64_t i = 0; i < count; ++i) {
      places.push_back(first + i);
      slots.push_back(static_cast<int32_t>(first + i));
    }
    Halves mask(128 * 128);
    for (size_t i = 0; i < mask.size(); ++i) mask[i] = i % 128 > i / 128 ? 0xFC00 : 0;
    tensors = {real(DataType::i64, {count}, tokens),
               real(DataType::i64, {count}, places),
               some({8, kHead}, 50),
               some({8, kHead}, 51),
               real(DataType::f16, {128, 128}, mask),
               real(DataType::i32, {1, 1}, std::vector<int32_t>{0}),
               real(DataType::i32, {count}, slots),
               {},
               {},
               {},
               real(DataType::i32, {1}, std::vector<int32_t>{static_cast<int32_t>(first + count)}),
               real(DataType::i64, {1}, std::vector<int64_t>{count - 1})};
  }

  std::vector<TensorView> inputs() {
    std::vector<TensorView> views;
    for (Real& tensor : tensors) views.push_back(tensor.data.empty() ? TensorView() : tensor.view());
    return views;
  }
  static constexpr size_t kCosines = 2, kSines = 3;

  Halves run(Decoder& decoder) { return run(decoder, inputs()); }
  static Halves run(Decoder& decoder, const std::vector<TensorView>& inputs) {
    Real out = real(DataType::f16, {1, kWords}, Halves(kWords));
    CHECK((decoder.engine().output_shapes(inputs) == std::vector<Ints>{{1, kWords}}));
    decoder.model().Execute(inputs, {out.view()}, "{}");
    const auto* values = reinterpret_cast<const uint16_t*>(out.data.data());
    return {values, values + kWords};
  }

  std::vector<Real> tensors;
};

float value_of(uint16_t half) {
  const int exponent = (half >> 10) & 31;
  const float size = static_cast<float>((half & 1023) | (exponent ? 1024 : 0)) / 1024.0f;
  return (half & 0x8000 ? -size : size) * std::exp2(static_cast<float>(exponent ? exponent : 1) - 15.0f);
}

bool near(const Halves& a, const Halves& b) {
  for (size_t i = 0; i < a.size(); ++i) {
    if (!(std::abs(value_of(a[i]) - value_of(b[i])) <= 0.02f)) return false;
  }
  return a.size() == b.size();
}

// A model on the processor that has run a step, and the step's inputs with and without its tables.
struct Ready {
  Ready() : without(step.inputs()), constants(without.size()) {
    decoder.engine().set_caches(caches.keys, caches.values);
    expected = step.run(decoder);
    for (size_t table : {Step::kCosines, Step::kSines}) std::swap(without[table], constants[table]);
  }
  Decoder decoder{on_processor()};
  Caches caches{nullptr};
  Step step{true};
  std::vector<TensorView> without, constants;
  Halves expected;
};

// Prefill and decode over one set of weights and caches.
std::vector<Halves> generation(const std::shared_ptr<GraphBackend>& backend, Device* device) {
  Decoder prefill(backend);
  Decoder decode(backend, false, &prefill.engine());
  Caches caches(device);
  std::vector<Halves> results;
  for (Decoder* one : {&prefill, &decode}) one->engine().set_caches(caches.keys, caches.values);
  results.push_back(Step(true).run(prefill));
  results.push_back(Step(false).run(decode));
  return results;
}

}  // namespace

TEST(the_decoder_gives_the_same_on_the_processor_and_on_the_device) {
  const auto weights = std::make_shared<DeviceWeights>(device_with());
  const auto ours = generation(std::make_shared<ascend::DeviceGraphBackend>(weights), weights->device().get());
  const auto theirs = generation(on_processor(), nullptr);
  for (size_t i = 0; i < ours.size(); ++i) CHECK(near(ours[i], theirs[i]));
  CHECK(ours[0] != ours[1]);
}

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
  Decoder decoder(on_processor());
  Step step(true);
  CHECK_THROWS(step.run(decoder), "is missing");
  Caches caches(nullptr), few(nullptr);
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
