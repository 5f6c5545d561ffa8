// SPDX-License-Identifier: Apache-2.0
#include "cpu/engine/custom_op.h"

#include <algorithm>
#include <exception>
#include <memory>

#include "atb_core/error.h"
#include "cpu/engine/op.h"

namespace atb_core {
namespace {

constexpr size_t kMaxScratch = size_t{1} << 40;

int32_t abi_dtype(DataType dtype) {
  switch (dtype) {
    case DataType::f32:
      return ATB_FLOAT32;
    case DataType::f16:
      return ATB_FLOAT16;
    case DataType::bf16:
      return ATB_BFLOAT16;
    case DataType::i8:
      return ATB_INT8;
    case DataType::i32:
      return ATB_INT32;
    case DataType::i64:
      return ATB_INT64;
    case DataType::b8:
      return ATB_BOOL;
  }
  return -1;
}

// Writes type and value of an attribute, not its name.
struct AttributeWriter {
  atb_attribute& out;

  void operator()(bool value) const {
    out.type = ATB_ATTRIBUTE_BOOL;
    out.integer = value ? 1 : 0;
  }
  void operator()(int64_t value) const {
    out.type = ATB_ATTRIBUTE_INT;
    out.integer = value;
    out.number = static_cast<double>(value);
  }
  void operator()(double value) const {
    out.type = ATB_ATTRIBUTE_FLOAT;
    out.number = value;
  }
  void operator()(const std::string& value) const {
    out.type = ATB_ATTRIBUTE_TEXT;
    out.text = value.c_str();
    out.integer = static_cast<int64_t>(value.size());
  }
  void operator()(const std::vector<int64_t>& value) const {
    out.type = ATB_ATTRIBUTE_LIST;
    out.list = value.data();
    out.integer = static_cast<int64_t>(value.size());
  }
};

// Returns the number of bytes of the UTF-8 character at the start of `text`, 0 if there is none.
size_t character(std::string_view text) {
  const auto byte = [&](size_t i) { return static_cast<unsigned char>(text[i]); };
  const size_t length = byte(0) < 0x80 ? 1 : byte(0) < 0xC2 ? 0 : byte(0) < 0xE0 ? 2 : byte(0) < 0xF0 ? 3 : 4;
  if (length == 0 || length > text.size() || byte(0) > 0xF4) return 0;
  for (size_t i = 1; i < length; ++i) {
    if ((byte(i) & 0xC0) != 0x80) return 0;
  }
  if (length < 3) return length;
  // An overlong form, half of a UTF-16 pair, or a value beyond the last character.
  const unsigned second = byte(1);
  const bool wrong = (byte(0) == 0xE0 && second < 0xA0) || (byte(0) == 0xED && second > 0x9F) ||
                     (byte(0) == 0xF0 && second < 0x90) || (byte(0) == 0xF4 && second > 0x8F);
  return wrong ? 0 : length;
}

// Returns a custom kernel's message as valid UTF-8, which Python requires.
std::string readable(std::string_view text) {
  std::string result;
  while (!text.empty()) {
    const size_t length = character(text);
    result += length == 0 ? std::string_view("?") : text.substr(0, length);
    text.remove_prefix(std::max(length, size_t{1}));
  }
  return result;
}

// A node of a custom op in the form that its functions take.
class CustomNode {
 public:
  CustomNode(const CustomKernel& kernel, const Binding& binding)
      : kernel_(kernel), num_inputs_(binding.num_inputs()), values_(binding.attributes()) {
    for (int i = 0; i < binding.num_inputs(); ++i) views_.push_back(&binding.in(i));
    for (int i = 0; i < binding.num_outputs(); ++i) views_.push_back(&binding.out(i));
    for (const auto& [name, value] : values_) {
      atb_attribute& attribute = attributes_.emplace_back();
      attribute.name = name.c_str();
      std::visit(AttributeWriter{attribute}, value);
    }
  }
  CustomNode(const CustomNode&) = delete;
  CustomNode& operator=(const CustomNode&) = delete;

  // Calls the kernel's check; throws Error with its message if it refuses the node.
  cpu::ScratchSize check(int threads, double& work) const {
    if (kernel_.check == nullptr) return {0, tensor_bytes()};
    std::vector<atb_tensor> tensors(views_.size());
    for (size_t i = 0; i < tensors.size(); ++i) tensors[i] = tensor(i, nullptr);
    atb_call call = new_call(tensors.data());
    call.parts = threads;
    if (const std::string problem = invoke(kernel_.check, call); !problem.empty()) fail(problem);
    if (call.scratch_bytes > kMaxScratch) fail("its kernel asks for ", call.scratch_bytes, " bytes of scratch memory");
    work = call.work;
    return {0, tensor_bytes() + call.scratch_bytes};
  }

  // Runs this thread's part. The descriptions of the tensors lie in its scratch memory: a step allocates nothing.
  void run(const cpu::Worker& worker) const {
    auto* tensors = reinterpret_cast<atb_tensor*>(worker.scratch);
    for (size_t i = 0; i < views_.size(); ++i) tensors[i] = tensor(i, views_[i]->data);
    atb_call call = new_call(tensors);
    call.part = worker.index;
    call.parts = worker.count;
    call.scratch = worker.scratch + tensor_bytes();
    if (const std::string problem = invoke(kernel_.run, call); !problem.empty()) worker.error->report(problem);
  }

 private:
  size_t tensor_bytes() const { return align_up(views_.size() * sizeof(atb_tensor)); }

  atb_tensor tensor(size_t index, void* data) const {
    const TensorView& view = *views_[index];
    return {data, view.shape, view.rank, abi_dtype(view.dtype)};
  }

  atb_call new_call(const atb_tensor* tensors) const {
    atb_call call{};
    call.size = sizeof(call);
    call.op = kernel_.op.c_str();
    call.inputs = tensors;
    call.outputs = tensors + num_inputs_;
    call.attributes = attributes_.data();
    call.num_inputs = num_inputs_;
    call.num_outputs = static_cast<int32_t>(views_.size()) - num_inputs_;
    call.num_attributes = static_cast<int32_t>(attributes_.size());
    call.work = -1;
    return call;
  }

  // Calls a function; returns its message if it fails, else an empty string.
  static std::string invoke(atb_kernel_function function, atb_call& call) {
    char message[ATB_MESSAGE_SIZE];
    message[0] = '\0';
    call.message = message;
    call.message_size = sizeof(message);
    int32_t status = 0;
    // A C function does not throw, but one written in C++ may; no exception may leave a thread of the pool.
    try {
      status = function(&call);
    } catch (const std::exception& error) {
      return readable(std::string("its kernel threw an exception: ") + error.what());
    } catch (...) {
      return "its kernel threw an exception";
    }
    if (status == 0) return {};
    message[sizeof(message) - 1] = '\0';
    if (message[0] == '\0') return "its kernel failed with status " + std::to_string(status) + " and no message";
    return readable(message);
  }

  const CustomKernel kernel_;
  const int32_t num_inputs_;
  const Attributes values_;
  std::vector<const TensorView*> views_;  // inputs, then outputs
  std::vector<atb_attribute> attributes_;
};

Bound bind_custom(const CustomKernel& kernel, const Binding& binding) {
  const auto node = std::make_shared<const CustomNode>(kernel, binding);
  double work = -1;
  const cpu::ScratchSize scratch = node->check(binding.threads, work);
  return {[node](const cpu::Worker& worker) { node->run(worker); }, scratch, work};
}

}  // namespace

void register_kernel(const CustomKernel& kernel) {
  if (kernel.op.empty()) fail("a kernel needs the name of its op");
  if (kernel.abi_version != ATB_KERNEL_ABI_VERSION) {
    fail("the kernel of op ", kernel.op, " is written for version ", kernel.abi_version,
         " of the kernel ABI; this engine has version ", ATB_KERNEL_ABI_VERSION);
  }
  if (kernel.run == nullptr) fail("the kernel of op ", kernel.op, " has no run function");
  int least = 0;
  for (int index : kernel.writes) {
    if (index < 0 || index >= kAnyNumber) fail("op ", kernel.op, " cannot write input ", index);
    least = std::max(least, index + 1);
  }
  add_custom_op({.name = kernel.op,
                 .inputs = {least, kAnyNumber},
                 .outputs = {0, kAnyNumber},
                 .writes = kernel.writes,
                 .any_attributes = true},
                {.bind = [kernel](const Binding& binding) { return bind_custom(kernel, binding); }});
}

}  // namespace atb_core
