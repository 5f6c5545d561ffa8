// SPDX-License-Identifier: Apache-2.0
#include "atb/diagnose.h"

#include <span>

#include "atb/layout.h"
#include "atb/status.h"

namespace atb_core::ascend {
namespace {

std::string type_name(aclDataType type) {
  for (DataType known :
       {DataType::f32, DataType::f16, DataType::bf16, DataType::i8, DataType::i32, DataType::i64, DataType::b8}) {
    if (acl_type(known) == type) return std::string(name(known));
  }
  return "type " + std::to_string(static_cast<int>(type));
}

bool is_collective(const std::string& name) {
  return name == "AllReduce" || name == "AllGather" || name == "LinearParallel";
}

// Returns the tensors of one operation within a segment, as the graph would pass them.
class Probe {
 public:
  Probe(const Segment& segment, const ::atb::VariantPack& pack, const std::vector<int64_t>& sizes)
      : sizes_(sizes),
        values_(segment.inputs.size() + segment.outputs.size() + static_cast<size_t>(segment.num_internals)) {
    const auto size = [](const auto& tensors) { return static_cast<size_t>(tensors.size()); };
    for (size_t i = 0; i < size(pack.inTensors); ++i) values_[i] = pack.inTensors.at(i);
    for (size_t i = 0; i < size(pack.outTensors); ++i) values_[segment.inputs.size() + i] = pack.outTensors.at(i);
    // Internal tensors have no address before the graph has run; any valid address serves here.
    for (const ::atb::Tensor& tensor : values_) {
      if (spare_ == nullptr) spare_ = tensor.deviceData;
    }
  }

  // Returns an empty text if ATB accepts the operation.
  std::string refusal(const Segment::Step& step, ::atb::Context* context) {
    ::atb::Operation* made = nullptr;
    const ::atb::Status created = step.node.create(&made);
    const BuiltOperation operation(made);
    ::atb::VariantPack pack;
    fill(step, pack);
    if (created != ::atb::NO_ERROR) return sentence(step, created, pack);
    ::atb::SVector<::atb::TensorDesc> in, out;
    in.resize(pack.inTensors.size());
    for (size_t i = 0; i < pack.inTensors.size(); ++i) in.at(i) = pack.inTensors.at(i).desc;
    out.resize(operation.get()->GetOutputNum());
    const ::atb::Status inferred = operation.get()->InferShape(in, out);
    if (inferred != ::atb::NO_ERROR) return sentence(step, inferred, pack);
    for (size_t i = 0; i < pack.outTensors.size() && i < out.size(); ++i) {
      ::atb::Tensor& tensor = pack.outTensors.at(i);
      tensor.desc = out.at(i);
      tensor.dataSize = ::atb::Utils::GetTensorSize(tensor.desc);
      values_[static_cast<size_t>(step.node.outputs[i])].desc = tensor.desc;
    }
    // Skipped: a rank that prepares a collective operation may wait for the other ranks.
    if (is_collective(step.node.name)) return "";
    uint64_t workspace = 0;
    const ::atb::Status prepared = operation.get()->Setup(pack, workspace, context);
    if (prepared == ::atb::NO_ERROR) return "";
    const auto* call = dynamic_cast<const AclnnOperation*>(operation.get());
    return sentence(step, prepared, pack) + (call == nullptr ? "" : "; " + call->last_error());
  }

 private:
  void fill(const Segment::Step& step, ::atb::VariantPack& pack) const {
    pack.inTensors.resize(step.node.inputs.size());
    pack.outTensors.resize(step.node.outputs.size());
    for (size_t i = 0; i < step.node.inputs.size(); ++i) {
      ::atb::Tensor& tensor = pack.inTensors.at(i);
      tensor = values_[static_cast<size_t>(step.node.inputs[i])];
      if (step.views[i] != nullptr) {
        tensor.desc.shape.dimNum = step.views[i]->size();
        for (size_t axis = 0; axis < step.views[i]->size(); ++axis) {
          tensor.desc.shape.dims[axis] = (*step.views[i])[axis].evaluate(sizes_);
        }
      }
      complete(tensor);
    }
    for (size_t i = 0; i < step.node.outputs.size(); ++i) {
      pack.outTensors.at(i) = values_[static_cast<size_t>(step.node.outputs[i])];
      complete(pack.outTensors.at(i));
    }
  }

  void complete(::atb::Tensor& tensor) const {
    if (tensor.deviceData == nullptr) tensor.deviceData = spare_;
    tensor.dataSize = ::atb::Utils::GetTensorSize(tensor.desc);
  }

  std::string sentence(const Segment::Step& step, ::atb::Status status, const ::atb::VariantPack& pack) const {
    std::string text = "it refuses " + step.node.name + ", made of " + describe(*step.source) + ", with " +
                       atb_status_text(status) + "; its inputs:";
    for (size_t i = 0; i < pack.inTensors.size(); ++i) {
      text += (i ? ", " : " ") + describe_operand(pack.inTensors.at(i).desc);
    }
    return text;
  }

  const std::vector<int64_t>& sizes_;
  std::vector<::atb::Tensor> values_;
  void* spare_ = nullptr;
};

}  // namespace

std::string describe_operand(const ::atb::TensorDesc& desc) {
  const std::span<const int64_t> shape(desc.shape.dims, desc.shape.dimNum);
  return type_name(desc.dtype) + ' ' + shape_text(shape) + (desc.format == ACL_FORMAT_FRACTAL_NZ ? " nz" : "");
}

std::string diagnose(const Segment& segment, const ::atb::VariantPack& pack, const std::vector<int64_t>& sizes,
                     ::atb::Context* context) {
  Probe probe(segment, pack, sizes);
  for (const Segment::Step& step : segment.steps) {
    const std::string refusal = probe.refusal(step, context);
    if (!refusal.empty()) return refusal;
  }
  std::string text = "it takes each of its operations alone; the segment's inputs:";
  for (size_t i = 0; i < pack.inTensors.size(); ++i) {
    text += (i ? ", " : " ") + describe_operand(pack.inTensors.at(i).desc);
  }
  return text;
}

}  // namespace atb_core::ascend
