// SPDX-License-Identifier: Apache-2.0
// The decoder that C++ builds, with small weights, caches and steps, for tests on any backend.
#pragma once

#include <deque>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "atb/graph_backend.h"
#include "atb_device.h"
#include "models/graph_model_engine.h"
#include "models/model_factory.h"

namespace atb_core::test {

constexpr int64_t kHeads = 4, kKvHeads = 2, kHead = 16, kHidden = 32, kInner = 48, kWords = 64, kSlots = 16;
constexpr int kLayers = 2;

inline std::string parameters(bool prefill) {
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
inline Real some(Ints shape, size_t seed) {
  Halves values;
  size_t count = 1;
  for (int64_t size : shape) count *= static_cast<size_t>(size);
  for (size_t i = 0; i < count; ++i) {
    const uint32_t bits = static_cast<uint32_t>((i + seed * 977) * 2654435761u);
    values.push_back(static_cast<uint16_t>(0x2800 | (bits >> 8 & 0x0FFF) | (bits >> 4 & 0x8000)));
  }
  return real(DataType::f16, std::move(shape), values);
}

inline std::shared_ptr<GraphBackend> on_device() {
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

}  // namespace atb_core::test
