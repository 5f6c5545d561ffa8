// SPDX-License-Identifier: Apache-2.0
// The host simulator's operations between Setup and Execute: the order of calls, tensors, workspace and host data.
#include <cstring>
#include <memory>
#include <thread>

#include "sim_card.h"

using namespace atb_core::test;

namespace {

// A card with one addition of two tensors, 1 + 2.
struct Addition : Card {
  Operation* operation = made();
  VariantPack pack = Card::pack(1.0f, 2.0f);
  uint64_t size = 0;

  ~Addition() { DestroyOperation(operation); }
  Status setup() { return operation->Setup(pack, size, context); }
  Status execute() { return operation->Execute(pack, nullptr, size, context); }
  float result() {
    CHECK(wait() == ACL_SUCCESS);
    return first(pack.outTensors.at(0));
  }
};

// Paged attention of two sequences, whose lengths Setup reads on the host.
struct Attention : Card {
  std::vector<int32_t> lengths = {3, 5};
  Operation* operation = nullptr;
  VariantPack pack;
  uint64_t size = 0;

  Attention() {
    infer::PagedAttentionParam param;
    param.headNum = 1;
    param.kvHeadNum = 1;
    param.qkScale = 1.0f;
    CHECK(CreateOperation(param, &operation) == NO_ERROR);
    const auto half = [&](std::vector<int64_t> shape, aclDataType dtype = ACL_FLOAT16) {
      Tensor tensor;
      tensor.desc.dtype = dtype;
      tensor.desc.format = ACL_FORMAT_ND;
      for (int64_t size : shape) tensor.desc.shape.dims[tensor.desc.shape.dimNum++] = size;
      tensor.dataSize = Utils::GetTensorSize(tensor);
      tensor.deviceData = allocate(tensor.dataSize);
      CHECK(aclrtMemset(tensor.deviceData, tensor.dataSize, 0, tensor.dataSize) == ACL_SUCCESS);
      return tensor;
    };
    pack.inTensors = {half({2, 1, 16}), half({1, 16, 1, 16}), half({1, 16, 1, 16}), half({2, 1}, ACL_INT32),
                      half({2}, ACL_INT32)};
    pack.inTensors.at(4).hostData = lengths.data();
    pack.outTensors = {half({2, 1, 16})};
  }
  ~Attention() { DestroyOperation(operation); }
  Status setup() { return operation->Setup(pack, size, context); }
  Status execute() { return operation->Execute(pack, static_cast<uint8_t*>(allocate(size)), size, context); }
};

}  // namespace

TEST(an_operation_computes_on_the_stream_what_its_inputs_hold) {
  Addition one;
  const sim::Counters before = sim::counters();
  CHECK(one.setup() == NO_ERROR && one.execute() == NO_ERROR && one.result() == 3.0f);
  const sim::Counters after = sim::counters();
  CHECK(after.setups == before.setups + 1 && after.executes == before.executes + 1);
  CHECK(after.launches == before.launches + 1);
}

TEST(each_execute_needs_a_setup_of_its_own) {
  Addition one;
  CHECK(one.execute() == ERROR_INVALID_PARAM && says("Execute without a Setup"));
  CHECK(one.setup() == NO_ERROR && one.setup() == NO_ERROR);
  CHECK(one.execute() == NO_ERROR && one.execute() == ERROR_INVALID_PARAM);
}

TEST(after_a_setup_or_an_execute_that_failed_another_setup_is_needed) {
  Addition one;
  CHECK(one.setup() == NO_ERROR);
  one.pack.inTensors.at(0).desc.dtype = ACL_DT_UNDEFINED;
  CHECK(one.setup() == ERROR_INVALID_TENSOR_DTYPE);
  one.pack.inTensors.at(0).desc.dtype = ACL_FLOAT;
  CHECK(one.execute() == ERROR_INVALID_PARAM);
  for (const char* call : {"Operation::Setup", "Operation::Execute"}) {
    sim::inject(call, 0, ERROR_RT_FAIL);
    CHECK((one.setup() == ERROR_RT_FAIL || one.execute() == ERROR_RT_FAIL) && says("was told to fail"));
    CHECK(one.execute() == ERROR_INVALID_PARAM);
  }
  CHECK(one.setup() == NO_ERROR && one.execute() == NO_ERROR && one.result() == 3.0f);
}

TEST(setup_and_execute_want_the_same_living_context_with_a_living_stream) {
  Card other;
  Addition one;
  CHECK(one.setup() == NO_ERROR);
  CHECK(one.operation->Execute(one.pack, nullptr, 0, other.context) == ERROR_INVALID_PARAM);
  CHECK(says("another context"));
  CHECK(one.operation->Setup(one.pack, one.size, nullptr) == ERROR_INVALID_CONTEXT_ADDR);
  Context* fresh = nullptr;
  CHECK(CreateContext(&fresh) == NO_ERROR);
  CHECK(one.operation->Setup(one.pack, one.size, fresh) == ERROR_INVALID_STREAM && says("stream was never set"));
  CHECK(DestroyContext(fresh) == NO_ERROR);
  CHECK(one.operation->Setup(one.pack, one.size, fresh) == ERROR_INVALID_CONTEXT_ADDR && says("was destroyed"));
  CHECK(one.setup() == NO_ERROR);
  CHECK(aclrtDestroyStream(one.stream) == ACL_SUCCESS);
  one.stream = nullptr;
  CHECK(one.execute() == ERROR_INVALID_STREAM && one.setup() == ERROR_INVALID_STREAM);
}

TEST(execute_wants_a_thread_with_a_device) {
  Addition one;
  CHECK(one.setup() == NO_ERROR);
  std::thread([&] { CHECK(one.execute() == ERROR_RT_FAIL && says("has not called aclrtSetDevice")); }).join();
  CHECK(one.setup() == NO_ERROR);
  std::thread([&] { CHECK(aclrtSetDevice(0) == ACL_SUCCESS && one.execute() == NO_ERROR); }).join();
  CHECK(one.result() == 3.0f);
}

TEST(the_number_of_tensors_is_checked) {
  Addition one;
  VariantPack pack;
  pack.inTensors.push_back(one.pack.inTensors.at(0));
  pack.outTensors = one.pack.outTensors;
  CHECK(one.operation->Setup(pack, one.size, one.context) == ERROR_INVALID_IN_TENSOR_NUM && says("1 inputs, not 2"));
  pack.inTensors.push_back(one.pack.inTensors.at(1));
  pack.outTensors.clear();
  CHECK(one.operation->Setup(pack, one.size, one.context) == ERROR_INVALID_IN_TENSOR_NUM && says("0 outputs, not 1"));
  SVector<TensorDesc> in, out;
  CHECK(one.operation->InferShape(in, out) == ERROR_INVALID_IN_TENSOR_NUM);
  in = {pack.inTensors.at(0).desc, pack.inTensors.at(1).desc};
  CHECK(one.operation->InferShape(in, out) == ERROR_INVALID_IN_TENSOR_NUM && says("0 outputs"));
  out.resize(1);
  CHECK(one.operation->InferShape(in, out) == NO_ERROR && out.at(0).shape.dims[0] == kCount);
}

TEST(setup_names_the_tensor_whose_description_is_wrong) {
  Addition one;
  const TensorDesc right = one.pack.inTensors.at(1).desc;
  const auto refused = [&](TensorDesc desc, Status status, const std::string& why) {
    one.pack.inTensors.at(1).desc = desc;
    one.pack.inTensors.at(1).dataSize = Utils::GetTensorSize(desc);
    CHECK(one.setup() == status);
    CHECK(says("input 1") && says(why));
  };
  TensorDesc desc = right;
  desc.dtype = ACL_DT_UNDEFINED;
  refused(desc, ERROR_INVALID_TENSOR_DTYPE, "no known element type");
  desc = right;
  desc.format = ACL_FORMAT_NCHW;
  refused(desc, ERROR_INVALID_TENSOR_FORMAT, "format 0");
  desc = right;
  desc.shape.dimNum = 0;
  refused(desc, ERROR_INVALID_TENSOR_DIM_NUM, "0 dimensions");
  desc.shape.dimNum = 1;
  desc.shape.dims[0] = 0;
  refused(desc, ERROR_INVALID_TENSOR_DIM, "dimension of 0");
  desc.shape.dims[0] = -16;
  refused(desc, ERROR_INVALID_TENSOR_DIM, "dimension of -16");
  desc.shape.dims[0] = int64_t{1} << 40;
  refused(desc, ERROR_INVALID_TENSOR_SIZE, "larger than 256 GiB");
  desc.shape.dims[0] = int64_t{1} << 62;
  refused(desc, ERROR_INVALID_TENSOR_SIZE, "larger than 256 GiB");
  one.pack.inTensors.at(1).desc.shape.dimNum = 9;
  CHECK(one.setup() == ERROR_INVALID_TENSOR_DIM_NUM && says("9 dimensions"));
}

TEST(execute_names_the_tensor_whose_memory_is_wrong) {
  Addition one;
  const Tensor right = one.pack.inTensors.at(1);
  Tensor& tensor = one.pack.inTensors.at(1);
  // Setup looks at neither sizes nor addresses.
  const auto refused = [&](const char* who, const std::string& why) {
    CHECK(one.setup() == NO_ERROR);
    CHECK(one.execute() == ERROR_INVALID_PARAM && says(who) && says(why));
  };
  tensor.dataSize -= 4;
  refused("input 1", "dataSize says 60");
  tensor = right;
  tensor.deviceData = nullptr;
  refused("input 1", "has no valid deviceData");
  float host[kCount] = {};
  tensor.deviceData = host;
  refused("input 1", "no address of the device");
  tensor = right;
  one.pack.outTensors.at(0).deviceData = nullptr;
  one.pack.outTensors.at(0).hostData = host;
  refused("output 0", "has no valid deviceData");
}

TEST(outputs_are_what_the_operation_makes) {
  Addition one;
  Tensor& out = one.pack.outTensors.at(0);
  const Tensor right = out;
  out.desc.shape.dims[0] = kCount / 2;
  out.dataSize /= 2;
  CHECK(one.setup() == ERROR_INVALID_TENSOR_DIM && says("output 0") && says("the operation makes type 0 [16]"));
  out = right;
  out.desc.dtype = ACL_INT32;
  CHECK(one.setup() == ERROR_INVALID_TENSOR_DTYPE);
}

TEST(addresses_may_change_between_setup_and_execute_but_nothing_else) {
  Addition one;
  CHECK(one.setup() == NO_ERROR);
  one.pack.inTensors.at(0) = one.tensor(40.0f);
  CHECK(one.execute() == NO_ERROR && one.result() == 42.0f);
  const auto refused = [&](auto&& change) {
    const VariantPack right = one.pack;
    CHECK(one.setup() == NO_ERROR);
    change(one.pack.inTensors.at(1));
    const Status status = one.execute();
    one.pack = right;
    return status;
  };
  CHECK(refused([](Tensor& t) { t.desc.dtype = ACL_INT32; }) == ERROR_INVALID_TENSOR_DIM && says("tensor 1 was"));
  CHECK(refused([](Tensor& t) { t.desc.format = ACL_FORMAT_FRACTAL_NZ; }) == ERROR_INVALID_TENSOR_DIM);
  CHECK(refused([](Tensor& t) {
          t.desc.shape.dims[1] = 1;
          t.desc.shape.dimNum = 2;
        }) == ERROR_INVALID_TENSOR_DIM);
  CHECK(refused([](Tensor& t) { t.dataSize = 4; }) == ERROR_INVALID_PARAM && says("dataSize"));
  CHECK(refused([](Tensor& t) { t.deviceData = nullptr; }) == ERROR_INVALID_PARAM && says("deviceData"));
}

TEST(execute_wants_living_memory_of_the_whole_tensor) {
  Addition one;
  CHECK(one.setup() == NO_ERROR);
  one.free_last();
  CHECK(one.execute() == ERROR_INVALID_PARAM && says("output 0") && says("nothing is allocated there"));
  one.pack.outTensors.at(0) = one.tensor(0.0f);
  auto* begin = static_cast<char*>(one.pack.outTensors.at(0).deviceData);
  one.pack.outTensors.at(0).deviceData = begin + 512 - 32;
  CHECK(one.setup() == NO_ERROR && one.execute() == ERROR_INVALID_PARAM && says("only 32 bytes"));
}

TEST(memory_that_is_freed_before_a_kernel_runs_is_an_error_of_the_stream) {
  Addition one;
  // Enough work to delay the kernel.
  constexpr size_t kMany = size_t{64} << 20;
  void* large = one.allocate(kMany);
  CHECK(one.setup() == NO_ERROR);
  for (int i = 0; i < 8; ++i) CHECK(aclrtMemsetAsync(large, kMany, i, kMany, one.stream) == ACL_SUCCESS);
  CHECK(one.execute() == NO_ERROR);
  CHECK(aclrtFree(one.pack.outTensors.at(0).deviceData) == ACL_SUCCESS);
  CHECK(one.wait() == ACL_ERROR_RT_AICORE_EXCEPTION && says("freed before it ran"));
  one.memory.erase(one.memory.begin() + 2);
}

TEST(host_data_is_read_at_setup_and_stays_as_it_is_until_execute) {
  Attention one;
  CHECK(one.setup() == NO_ERROR && one.execute() == NO_ERROR && one.wait() == ACL_SUCCESS);
  CHECK(one.setup() == NO_ERROR);
  one.lengths[1] = 4;
  CHECK(one.execute() == ERROR_INVALID_PARAM && says("host data of input 4 changed between Setup and Execute"));
  CHECK(one.setup() == NO_ERROR);
  one.pack.inTensors.at(4).hostData = nullptr;
  CHECK(one.execute() == ERROR_INVALID_PARAM);
  CHECK(one.setup() == ERROR_INVALID_PARAM && says("input 4 has no hostData"));
  one.pack.inTensors.at(4).hostData = one.pack.inTensors.at(4).deviceData;
  CHECK(one.setup() == ERROR_INVALID_PARAM && says("hostData is an address of the device"));
}

TEST(what_is_read_on_the_host_needs_no_memory_on_the_device_and_is_not_read_there) {
  Attention one;
  // In device memory, these are lengths of -1.
  CHECK(aclrtMemset(one.pack.inTensors.at(4).deviceData, 8, 0xFF, 8) == ACL_SUCCESS);
  CHECK(one.setup() == NO_ERROR && one.execute() == NO_ERROR && one.wait() == ACL_SUCCESS);
  one.pack.inTensors.at(4).deviceData = nullptr;
  CHECK(one.setup() == NO_ERROR && one.execute() == NO_ERROR && one.wait() == ACL_SUCCESS);
}

TEST(kernels_with_a_workspace_want_all_of_it) {
  Attention one;
  CHECK(one.setup() == NO_ERROR && one.size == 4608);
  auto* workspace = static_cast<uint8_t*>(one.allocate(one.size));
  const auto execute = [&](uint8_t* address, uint64_t bytes) {
    CHECK(one.setup() == NO_ERROR);
    return one.operation->Execute(one.pack, address, bytes, one.context);
  };
  CHECK(execute(workspace, one.size - 1) == ERROR_INVALID_PARAM && says("4607 bytes where 4608 are needed"));
  CHECK(execute(nullptr, one.size) == ERROR_INVALID_PARAM && says("bad workspace"));
  CHECK(execute(workspace + 512, one.size) == ERROR_INVALID_PARAM);
  CHECK(execute(workspace, one.size) == NO_ERROR && one.wait() == ACL_SUCCESS);
  CHECK(std::isnan(*static_cast<const float*>(sim::window(workspace))));
}

TEST(an_operation_in_place_wants_its_output_where_its_input_is) {
  Card card;
  infer::LinearParam param;
  param.hasBias = false;
  param.enAccum = true;
  Operation* operation = nullptr;
  CHECK(CreateOperation(param, &operation) == NO_ERROR);
  const auto matrix = [&](aclDataType dtype) {
    Tensor tensor = card.tensor(0.0f);
    tensor.desc = {dtype, ACL_FORMAT_ND, {{4, 4}, 2}};
    tensor.dataSize = Utils::GetTensorSize(tensor);
    return tensor;
  };
  VariantPack pack;
  pack.inTensors = {matrix(ACL_FLOAT16), matrix(ACL_FLOAT16), matrix(ACL_FLOAT)};
  pack.outTensors = {matrix(ACL_FLOAT)};
  uint64_t size = 0;
  const auto execute = [&] {
    CHECK(operation->Setup(pack, size, card.context) == NO_ERROR);
    return operation->Execute(pack, static_cast<uint8_t*>(card.allocate(size)), size, card.context);
  };
  CHECK(execute() == ERROR_INVALID_PARAM && says("output 0 has to be the memory of input 2"));
  pack.outTensors = {pack.inTensors.at(2)};
  CHECK(execute() == NO_ERROR && card.wait() == ACL_SUCCESS);
  DestroyOperation(operation);
}

TEST(operations_are_made_and_destroyed_once) {
  Card card;
  const sim::Counters before = sim::counters();
  Operation* operation = made();
  CHECK(operation->GetName() == "ElewiseOperation" && operation->GetInputNum() == 2 && operation->GetOutputNum() == 1);
  CHECK(sim::counters().creates == before.creates + 1 && sim::counters().live_operations == before.live_operations + 1);
  CHECK(DestroyOperation(operation) == NO_ERROR && sim::counters().live_operations == before.live_operations);
  CHECK(DestroyOperation(operation) == ERROR_INVALID_OPERATION_ADDR && says("no such operation"));
  CHECK(DestroyOperation(nullptr) == ERROR_INVALID_OPERATION_ADDR);
  CHECK(CreateOperation(add(), nullptr) == ERROR_INVALID_PARAM && says("operation is null"));
  operation = nullptr;
  sim::inject("CreateOperation", 0, ERROR_OUT_OF_HOST_MEMORY);
  CHECK(CreateOperation(add(), &operation) == ERROR_OUT_OF_HOST_MEMORY && operation == nullptr);
}

TEST(an_operation_is_destroyed_before_the_contexts_that_prepared_it) {
  Card card;
  Context* other = nullptr;
  CHECK(CreateContext(&other) == NO_ERROR && other->SetExecuteStream(card.stream) == NO_ERROR);
  const VariantPack pack = card.pack(1.0f, 2.0f);
  uint64_t size = 0;
  Operation *early = made(), *late = made(), *unused = made();
  for (Operation* operation : {early, late}) CHECK(operation->Setup(pack, size, other) == NO_ERROR);
  CHECK(late->Setup(pack, size, card.context) == NO_ERROR);
  CHECK(DestroyOperation(early) == NO_ERROR);
  CHECK(DestroyContext(other) == NO_ERROR);
  CHECK(DestroyOperation(late) == ERROR_INVALID_CONTEXT_ADDR && says("was destroyed before it"));
  CHECK(DestroyOperation(unused) == NO_ERROR);
}

TEST(vectors_beyond_what_they_hold_in_line_want_their_room_reserved) {
  SVector<uint32_t> numbers;
  numbers.resize(64);
  CHECK_THROWS(numbers.resize(65), "too large");
  CHECK_THROWS(numbers.push_back(1), "too large");
  CHECK_THROWS(SVector<uint32_t>(65), "too large");
  CHECK(numbers.size() == 64);
  numbers.reserve(100);
  numbers.resize(99);
  numbers.push_back(7);
  CHECK(numbers.size() == 100 && numbers.at(99) == 7);
  CHECK_THROWS(numbers.resize(101), "too large");
  CHECK_THROWS(numbers.reserve(257), "too large");
  const SVector<uint32_t> copy = numbers;
  CHECK(copy == numbers);
}

TEST(lists_of_more_elements_than_fit_in_line_are_refused) {
  using Numbers = SVector<uint32_t>;
  // 0 to 64, written out: only a list in braces is an initializer list.
  const auto sixteen = [](auto&&... more) {
    return Numbers{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, more...};
  };
  CHECK(sixteen().size() == 16);
  const auto sixty_four = [&](auto&&... more) {
    return sixteen(0u, 1u, 2u, 3u, 4u, 5u, 6u, 7u, 8u, 9u, 10u, 11u, 12u, 13u, 14u, 15u,  //
                   0u, 1u, 2u, 3u, 4u, 5u, 6u, 7u, 8u, 9u, 10u, 11u, 12u, 13u, 14u, 15u,  //
                   0u, 1u, 2u, 3u, 4u, 5u, 6u, 7u, 8u, 9u, 10u, 11u, 12u, 13u, 14u, 15u, more...);
  };
  CHECK(sixty_four().size() == 64);
  CHECK_THROWS(sixty_four(64u), "too large");
}

TEST(sizes_and_counts_of_tensors_can_be_asked) {
  Card card;
  const Tensor tensor = card.tensor(1.0f);
  CHECK(Utils::GetTensorSize(tensor) == kBytes && Utils::GetTensorNumel(tensor) == kCount);
  TensorDesc desc = tensor.desc;
  desc.dtype = ACL_INT64;
  CHECK(Utils::GetTensorSize(desc) == 8 * kCount && Utils::GetTensorNumel(desc) == kCount);
}

TEST_MAIN()
