// SPDX-License-Identifier: Apache-2.0
#include "operation.h"

#include <algorithm>
#include <cstring>
#include <limits>
#include <mutex>
#include <set>
#include <utility>

#include "context.h"
#include "memory.h"
#include "ops/numeric.h"
#include "ops/reject.h"
#include "state.h"
#include "stream.h"

namespace atb {
namespace sim {
namespace {

std::mutex g_mutex;

std::set<Operation*>& operations() {
  static auto* const kOperations = new std::set<Operation*>;
  return *kOperations;
}

bool same(const TensorDesc& a, const TensorDesc& b) {
  if (a.dtype != b.dtype || a.format != b.format || a.shape.dimNum != b.shape.dimNum) return false;
  for (uint64_t i = 0; i < a.shape.dimNum; ++i) {
    if (a.shape.dims[i] != b.shape.dims[i]) return false;
  }
  return true;
}

Descs descs(const SVector<Tensor>& tensors) {
  Descs result;
  for (const Tensor& tensor : tensors) result.push_back(tensor.desc);
  return result;
}

uint64_t hash(const void* data, uint64_t bytes) {
  uint64_t value = 1469598103934665603u;
  for (uint64_t i = 0; i < bytes; ++i) value = (value ^ static_cast<const uint8_t*>(data)[i]) * 1099511628211u;
  return value;
}

// Two threads inside of one operation would see each other's half-made state.
class Entry {
 public:
  explicit Entry(std::atomic<bool>& busy) : busy_(busy), alone_(!busy.exchange(true)) {}
  ~Entry() {
    if (alone_) busy_ = false;
  }
  Entry(const Entry&) = delete;
  Entry& operator=(const Entry&) = delete;
  bool alone() const { return alone_; }

 private:
  std::atomic<bool>& busy_;
  bool alone_;
};

// A launch with its addresses, as the stream runs it.
struct Bound {
  std::string name;
  Kernel kernel;
  struct Operand {
    void* address;
    TensorDesc desc;
    bool host_only;
  };
  std::vector<Operand> in, out;
};

Views views(const std::vector<Bound::Operand>& operands, const std::string& name) {
  Views result;
  for (const Bound::Operand& operand : operands) {
    View view{nullptr,
              operand.desc.dtype,
              operand.desc.format,
              {operand.desc.shape.dims, operand.desc.shape.dims + operand.desc.shape.dimNum}};
    // Tensors that Setup read on the host have no copy on the device that a kernel could read.
    if (!operand.host_only) {
      std::string why;
      if (!is_live(operand.address, desc_bytes(operand.desc), why)) {
        throw std::runtime_error(name + " has no memory on the device, or it was freed before it ran: " + why);
      }
      view.data = static_cast<std::byte*>(window(operand.address));
    }
    result.push_back(std::move(view));
  }
  return result;
}

aclError run(const Bound& launch) {
  if (const auto due = kernel_fault()) {
    explain(launch.name + " was told to fail with " + std::to_string(*due));
    return *due;
  }
  try {
    launch.kernel(views(launch.in, launch.name), views(launch.out, launch.name));
    return ACL_SUCCESS;
  } catch (const std::exception& error) {
    explain(launch.name + ": " + error.what());
    return ACL_ERROR_RT_AICORE_EXCEPTION;
  }
}

Status execute_foreign(Operation& operation, const Bound& launch, uint8_t* workspace, uint64_t bytes,
                       Context* context) {
  VariantPack pack;
  const auto give = [](const std::vector<Bound::Operand>& operands, SVector<Tensor>& tensors) {
    tensors.resize(operands.size());
    for (size_t i = 0; i < operands.size(); ++i) {
      tensors.at(i) = {operands[i].desc, operands[i].address, nullptr, desc_bytes(operands[i].desc)};
    }
  };
  give(launch.in, pack.inTensors);
  give(launch.out, pack.outTensors);
  return operation.Execute(pack, workspace, bytes, context);
}

}  // namespace

SimOperation::SimOperation() {
  const std::lock_guard lock(g_mutex);
  operations().insert(this);
  account([](Counters& now) {
    ++now.creates;
    ++now.live_operations;
  });
}

SimOperation::~SimOperation() {
  const std::lock_guard lock(g_mutex);
  operations().erase(this);
  account([](Counters& now) { --now.live_operations; });
}

bool SimOperation::contexts_live() const {
  return std::all_of(contexts_.begin(), contexts_.end(), [](uint64_t number) { return context_lives(number); });
}

SimOperation* own_operation(Operation* operation) {
  const std::lock_guard lock(g_mutex);
  return operations().contains(operation) ? static_cast<SimOperation*>(operation) : nullptr;
}

uint64_t desc_bytes(const TensorDesc& desc) {
  uint64_t bytes = size_of(desc.dtype);
  for (uint64_t i = 0; i < desc.shape.dimNum; ++i) bytes *= static_cast<uint64_t>(desc.shape.dims[i]);
  return bytes;
}

std::string describe(const TensorDesc& desc) {
  std::string text = "type " + std::to_string(desc.dtype) + " [";
  for (uint64_t i = 0; i < desc.shape.dimNum && i < MAX_DIM; ++i) {
    text += (i ? ", " : "") + std::to_string(desc.shape.dims[i]);
  }
  return text + (desc.format == ACL_FORMAT_FRACTAL_NZ ? "] nz" : "]");
}

Status check_desc(const std::string& who, const TensorDesc& desc) {
  constexpr uint64_t kMostBytes = uint64_t{256} << 30;
  if (size_of(desc.dtype) == 0) return reject(ERROR_INVALID_TENSOR_DTYPE, who, " has no known element type");
  if (desc.format != ACL_FORMAT_ND && desc.format != ACL_FORMAT_FRACTAL_NZ) {
    return reject(ERROR_INVALID_TENSOR_FORMAT, who, " has format ", int{desc.format}, ", not ND or FRACTAL_NZ");
  }
  if (desc.shape.dimNum == 0 || desc.shape.dimNum > MAX_DIM) {
    return reject(ERROR_INVALID_TENSOR_DIM_NUM, who, " has ", desc.shape.dimNum, " dimensions, not 1 to 8");
  }
  uint64_t bytes = size_of(desc.dtype);
  for (uint64_t i = 0; i < desc.shape.dimNum; ++i) {
    if (desc.shape.dims[i] <= 0)
      return reject(ERROR_INVALID_TENSOR_DIM, who, " has a dimension of ", desc.shape.dims[i]);
    if (static_cast<uint64_t>(desc.shape.dims[i]) > kMostBytes / bytes) {
      return reject(ERROR_INVALID_TENSOR_SIZE, who, " is larger than 256 GiB");
    }
    bytes *= static_cast<uint64_t>(desc.shape.dims[i]);
  }
  return NO_ERROR;
}

Status SimOperation::check_counts(size_t inputs, size_t outputs) const {
  if (inputs != GetInputNum()) {
    return reject(ERROR_INVALID_IN_TENSOR_NUM, GetName(), ": ", inputs, " inputs, not ", GetInputNum());
  }
  if (outputs != GetOutputNum()) {
    return reject(ERROR_INVALID_IN_TENSOR_NUM, GetName(), ": ", outputs, " outputs, not ", GetOutputNum());
  }
  return NO_ERROR;
}

Status SimOperation::InferShape(const SVector<TensorDesc>& in, SVector<TensorDesc>& out) const {
  ATB_SIM_CALL("Operation::InferShape", GetName());
  ATB_SIM_TRY(check_counts(in.size(), out.size()));
  const Descs given(in.begin(), in.end());
  for (size_t i = 0; i < given.size(); ++i) {
    ATB_SIM_TRY(check_desc(GetName() + ": input " + std::to_string(i), given[i]));
  }
  Descs made(out.size());
  ATB_SIM_TRY(infer(given, made));
  for (size_t i = 0; i < made.size(); ++i) out.at(i) = made[i];
  return NO_ERROR;
}

Status SimOperation::check_descs(const VariantPack& pack) const {
  for (size_t i = 0; i < pack.inTensors.size(); ++i) {
    ATB_SIM_TRY(check_desc(GetName() + ": input " + std::to_string(i), pack.inTensors.at(i).desc));
  }
  for (size_t i = 0; i < pack.outTensors.size(); ++i) {
    ATB_SIM_TRY(check_desc(GetName() + ": output " + std::to_string(i), pack.outTensors.at(i).desc));
  }
  return NO_ERROR;
}

Status SimOperation::check_memory(const VariantPack& pack) const {
  const auto check = [&](const Tensor& tensor, const std::string& who, bool may_be_host) -> Status {
    if (tensor.dataSize != desc_bytes(tensor.desc)) {
      return reject(ERROR_INVALID_PARAM, who, " is ", describe(tensor.desc), ", ", desc_bytes(tensor.desc),
                    " bytes, but dataSize says ", tensor.dataSize);
    }
    if (tensor.deviceData == nullptr && tensor.hostData != nullptr && may_be_host) return NO_ERROR;
    std::string why;
    if (is_live(tensor.deviceData, tensor.dataSize, why)) return NO_ERROR;
    return reject(ERROR_INVALID_PARAM, who, " has no valid deviceData: ", why);
  };
  for (size_t i = 0; i < pack.inTensors.size(); ++i) {
    ATB_SIM_TRY(check(pack.inTensors.at(i), GetName() + ": input " + std::to_string(i), true));
  }
  for (size_t i = 0; i < pack.outTensors.size(); ++i) {
    ATB_SIM_TRY(check(pack.outTensors.at(i), GetName() + ": output " + std::to_string(i), false));
  }
  for (const auto& [out, in] : in_place()) {
    if (pack.outTensors.at(out).deviceData == pack.inTensors.at(in).deviceData) continue;
    return reject(ERROR_INVALID_PARAM, GetName(), ": output ", out, " has to be the memory of input ", in);
  }
  return NO_ERROR;
}

Status SimOperation::check_outputs(const Descs& in, const Descs& out) const {
  Descs made(out.size());
  ATB_SIM_TRY(infer(in, made));
  for (size_t i = 0; i < out.size(); ++i) {
    if (same(made[i], out[i])) continue;
    return reject(made[i].dtype != out[i].dtype ? ERROR_INVALID_TENSOR_DTYPE : ERROR_INVALID_TENSOR_DIM, GetName(),
                  ": output ", i, " is ", describe(out[i]), ", but the operation makes ", describe(made[i]));
  }
  return NO_ERROR;
}

Status SimOperation::Setup(const VariantPack& pack, uint64_t& workspace, Context* context) {
  const Entry entry(busy_);
  if (!entry.alone()) return reject(ERROR_INTERNAL_ERROR, GetName(), ": two threads are in this operation at once");
  prepared_.reset();
  ATB_SIM_CALL("Operation::Setup", GetName());
  try {
    return setup_locked(pack, workspace, context);
  } catch (const std::exception& error) {  // of a reshape function, say
    return reject(ERROR_OUT_OF_HOST_MEMORY, GetName(), ": an exception in Setup: ", error.what());
  }
}

Status SimOperation::setup_locked(const VariantPack& pack, uint64_t& workspace, Context* context) {
  account([](Counters& now) { ++now.setups; });
  ATB_SIM_TRY(check_context(context, GetName() + ": Setup"));
  ATB_SIM_TRY(check_counts(pack.inTensors.size(), pack.outTensors.size()));
  ATB_SIM_TRY(check_descs(pack));
  Prepared made{descs(pack.inTensors), descs(pack.outTensors), {}, {}, context, 0};
  ATB_SIM_TRY(check_outputs(made.in, made.out));
  std::vector<const int32_t*> host;
  for (const Tensor& tensor : pack.inTensors) {
    if (tensor.hostData != nullptr && is_device_address(tensor.hostData)) {
      return reject(ERROR_INVALID_PARAM, GetName(), ": hostData is an address of the device");
    }
    host.push_back(static_cast<const int32_t*>(tensor.hostData));
    made.host_hashes.push_back(tensor.hostData == nullptr ? 0 : hash(tensor.hostData, desc_bytes(tensor.desc)));
  }
  ATB_SIM_TRY(schedule(made.in, made.out, host, made.schedule));
  ATB_SIM_TRY(setup_foreign(made.schedule, context));
  contexts_.insert(context_number(context));
  made.workspace = (made.schedule.workspace + 511) / 512 * 512;
  workspace = made.workspace;
  prepared_ = std::move(made);
  return NO_ERROR;
}

// Prepares operations of others. As in ATB they get descriptions alone: tensors within a graph have no address yet.
Status SimOperation::setup_foreign(Schedule& schedule, Context* context) {
  const uint64_t own = (schedule.workspace + 511) / 512 * 512;
  for (Launch& launch : schedule.launches) {
    if (launch.foreign == nullptr) continue;
    VariantPack pack;
    const auto describe_all = [](const std::vector<Place>& places, SVector<Tensor>& tensors) {
      tensors.resize(places.size());
      for (size_t i = 0; i < places.size(); ++i) {
        tensors.at(i) = {places[i].desc, nullptr, nullptr, desc_bytes(places[i].desc)};
      }
    };
    describe_all(launch.in, pack.inTensors);
    describe_all(launch.out, pack.outTensors);
    ATB_SIM_TRY(launch.foreign->Setup(pack, launch.workspace_bytes, context));
    launch.workspace = own;
    schedule.workspace = std::max(schedule.workspace, own + launch.workspace_bytes);
  }
  return NO_ERROR;
}

// Addresses may differ from those of Setup; everything else must be equal.
Status SimOperation::check_unchanged(const Prepared& prepared, const VariantPack& pack) const {
  const Descs in = descs(pack.inTensors), out = descs(pack.outTensors);
  for (size_t i = 0; i < in.size() + out.size(); ++i) {
    const bool input = i < in.size();
    const TensorDesc& now = input ? in[i] : out[i - in.size()];
    const TensorDesc& then = input ? prepared.in[i] : prepared.out[i - in.size()];
    if (same(now, then)) continue;
    return reject(ERROR_INVALID_TENSOR_DIM, GetName(), ": tensor ", i, " was ", describe(then), " at Setup and is ",
                  describe(now), " at Execute");
  }
  for (size_t i = 0; i < in.size(); ++i) {
    const Tensor& tensor = pack.inTensors.at(i);
    const uint64_t value = tensor.hostData == nullptr ? 0 : hash(tensor.hostData, desc_bytes(tensor.desc));
    if (value == prepared.host_hashes[i]) continue;
    return reject(ERROR_INVALID_PARAM, GetName(), ": the host data of input ", i, " changed between Setup and Execute");
  }
  return NO_ERROR;
}

Status SimOperation::Execute(const VariantPack& pack, uint8_t* workspace, uint64_t workspace_size, Context* context) {
  const Entry entry(busy_);
  if (!entry.alone()) return reject(ERROR_INTERNAL_ERROR, GetName(), ": two threads are in this operation at once");
  // One Setup is for one Execute: lengths and addresses of another step need another.
  const std::optional<Prepared> prepared = std::exchange(prepared_, std::nullopt);
  ATB_SIM_CALL("Operation::Execute", GetName());
  if (!device_chosen()) {
    return reject(ERROR_RT_FAIL, GetName(), ": Execute on a thread that has not called aclrtSetDevice");
  }
  if (!prepared) return reject(ERROR_INVALID_PARAM, GetName(), ": Execute without a Setup that succeeded");
  return execute_locked(*prepared, pack, workspace, workspace_size, context);
}

Status SimOperation::execute_locked(const Prepared& prepared, const VariantPack& pack, uint8_t* workspace,
                                    uint64_t workspace_size, Context* context) const {
  account([](Counters& now) { ++now.executes; });
  if (context != prepared.context) {
    return reject(ERROR_INVALID_PARAM, GetName(), ": Execute with another context than Setup");
  }
  ATB_SIM_TRY(check_context(context, GetName() + ": Execute"));
  ATB_SIM_TRY(check_counts(pack.inTensors.size(), pack.outTensors.size()));
  ATB_SIM_TRY(check_descs(pack));
  ATB_SIM_TRY(check_memory(pack));
  ATB_SIM_TRY(check_unchanged(prepared, pack));
  const Schedule& schedule = prepared.schedule;
  if (workspace_size < prepared.workspace) {
    return reject(ERROR_INVALID_PARAM, GetName(), ": a workspace of ", workspace_size, " bytes where ",
                  prepared.workspace, " are needed");
  }
  std::string why;
  if (schedule.workspace > 0 && !is_live(workspace, workspace_size, why)) {
    return reject(ERROR_INVALID_PARAM, GetName(), ": bad workspace: ", why);
  }
  const auto bind = [&](const std::vector<Place>& places) {
    std::vector<Bound::Operand> operands;
    for (const Place& place : places) {
      void* address = nullptr;
      if (place.kind == Place::Kind::workspace) address = workspace + place.number;
      if (place.kind == Place::Kind::input) address = pack.inTensors.at(place.number).deviceData;
      if (place.kind == Place::Kind::output) address = pack.outTensors.at(place.number).deviceData;
      operands.push_back({address, place.desc, place.host_only});
    }
    return operands;
  };
  const uint64_t scratch = schedule.workspace;
  aclrtStream stream = context->GetExecuteStream();
  // Fills the workspace: an operation must not rely on its content.
  if (scratch > 0) {
    enqueue(stream, [workspace, scratch] {
      std::string gone;
      if (is_live(workspace, scratch, gone)) std::memset(window(workspace), 0xFF, scratch);
      return ACL_SUCCESS;
    });
  }
  for (const Launch& launch : schedule.launches) {
    Bound bound{launch.name, launch.kernel, bind(launch.in), bind(launch.out)};
    if (launch.foreign != nullptr) {
      uint8_t* own = launch.workspace_bytes > 0 ? workspace + launch.workspace : nullptr;
      ATB_SIM_TRY(execute_foreign(*launch.foreign, bound, own, launch.workspace_bytes, context));
      continue;
    }
    account([](Counters& now) { ++now.launches; });
    enqueue(stream, [bound = std::move(bound)] { return run(bound); });
  }
  return NO_ERROR;
}

}  // namespace sim

Status DestroyOperation(Operation* operation) {
  sim::SimOperation* own = sim::own_operation(operation);
  const bool graphs = own != nullptr && own->owned();
  const bool late = own != nullptr && !own->contexts_live();
  if (!graphs) delete own;
  ATB_SIM_CALL("DestroyOperation");
  if (graphs) return sim::reject(ERROR_INVALID_OPERATION_ADDR, "DestroyOperation: a graph owns this operation");
  if (late) {
    return sim::reject(ERROR_INVALID_CONTEXT_ADDR, "DestroyOperation: a context that prepared the operation was ",
                       "destroyed before it, and ATB would use the context's memory");
  }
  if (own != nullptr) return NO_ERROR;
  return sim::reject(ERROR_INVALID_OPERATION_ADDR, "DestroyOperation: there is no such operation");
}

}  // namespace atb
