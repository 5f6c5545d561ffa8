// SPDX-License-Identifier: Apache-2.0
// A model outside of the core: the normalized and projected mean of two embedding rows.
#include <atb_core/model.h>

#include <string>

namespace sample {

// `param` is the JSON with the model's parameters; this model has none and refuses any.
class PairModel : public atb_core::Model {
 public:
  explicit PairModel(const std::string& param) : Model("PairModel") {
    if (param != "{}") throw std::runtime_error("PairModel takes no parameters, give {}");
  }

 protected:
  void BuildGraph(atb_core::ModelGraph& graph) override {
    using atb_core::DataType, atb_core::Size;
    const Size pairs("pairs"), width("width");
    const atb_core::Value first = graph.input("first", DataType::i64, {pairs});
    const atb_core::Value second = graph.input("second", DataType::i64, {pairs});
    const atb_core::Value table = graph.weight("table", DataType::f32, {Size("rows"), width});
    const atb_core::Value scale = graph.weight("scale", DataType::f32, {width});
    const atb_core::Value matrix = graph.weight("matrix", DataType::f32, {Size("outputs"), width});
    graph.at("pair");
    const atb_core::Value sum = graph.add(graph.gather(table, first), graph.gather(table, second));
    graph.cut();  // on Ascend, the ops between two cuts become one operation
    graph.at("projection");
    graph.output(graph.linear(graph.rms_norm(sum, scale, 1e-6), matrix), "scores");
  }
};

REGISTER_MODEL(sample, PairModel);

}  // namespace sample

ATB_NATIVE_LIBRARY();
