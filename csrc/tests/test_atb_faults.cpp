// SPDX-License-Identifier: Apache-2.0
// A small decoder on the simulated device in which every call that can fail, and every kernel, fails once: each failure
// becomes an error with a message, the next run is correct, and nothing leaks.
#include <algorithm>
#include <set>

#include "atb_device.h"

using namespace atb_core;
using namespace atb_core::test;

namespace {

constexpr int64_t kSequences = 2, kHidden = 32, kHeads = 2, kHeadSize = 16, kBlocks = 4, kBlock = 16, kWords = 16;
constexpr int kLayers = 2, kSteps = 3;
constexpr int64_t kCacheBytes = kBlocks * kBlock * kHidden * 2;

struct Tensors {
  int ids, slots, tables, lengths, y;
  std::vector<int> caches;
  std::map<std::string, Ints> weights;
};

// Embedding, then in each layer attention over paged caches, added to the layer's input.
GraphSpec decoder(Tensors& t) {
  GraphBuilder b({"n"});
  const auto rows = [&] { return SymbolicShape{b.dim(0), DimExpr(kHidden)}; };
  const auto heads = [&] { return SymbolicShape{b.dim(0), DimExpr(kHeads), DimExpr(kHeadSize)}; };
  const auto inside = [&](SymbolicShape shape) { return b.add("", kInternal, std::move(shape), DataType::f16); };
  const auto weight = [&](const std::string& name, Ints shape) {
    t.weights[name] = shape;
    return b.add(name, kWeight, shape, DataType::f16);
  };
  t.ids = b.add("ids", kInput, SymbolicShape{b.dim(0)}, DataType::i32);
  t.slots = b.add("slots", kInput, SymbolicShape{b.dim(0)}, DataType::i32);
  t.tables = b.add("tables", kInput, SymbolicShape{b.dim(0), DimExpr(int64_t{1})}, DataType::i32);
  t.lengths = b.add("lengths", kInput, SymbolicShape{b.dim(0)}, DataType::i32);
  int at = inside(rows());
  b.node("Gather", {}, {weight("words", {kWords, kHidden}), t.ids}, {at});
  const int norm = weight("norm", {kHidden});
  for (int layer = 0; layer < kLayers; ++layer) {
    const std::string place = std::string("layer").append(std::to_string(layer));
    const int normed = inside(rows());
    b.node("RmsNorm", {}, {at, norm}, {normed});
    std::vector<int> qkv;
    for (const char* name : {".q", ".k", ".v"}) {
      const int flat = inside(rows());
      qkv.push_back(inside(heads()));
      b.node("Linear", {}, {normed, weight(place + name, {kHidden, kHidden})}, {flat});
      b.node("Reshape", {}, {flat}, {qkv.back()});
    }
    const int keys = b.add(place + ".keys", kInput, Ints{kBlocks, kBlock, kHeads, kHeadSize}, DataType::f16);
    const int values = b.add(place + ".values", kInput, Ints{kBlocks, kBlock, kHeads, kHeadSize}, DataType::f16);
    t.caches.insert(t.caches.end(), {keys, values});
    b.node("ReshapeAndCache", {}, {qkv[1], qkv[2], keys, values, t.slots}, {});
    const int attended = inside(heads()), flat = inside(rows());
    b.node("PagedAttention", {{"head_num", kHeads}, {"kv_head_num", kHeads}},
           {qkv[0], keys, values, t.tables, t.lengths}, {attended});
    b.node("Reshape", {}, {attended}, {flat});
    const bool last = layer + 1 == kLayers;
    const int next = last ? b.add("y", kOutput, rows(), DataType::f16) : inside(rows());
    b.node("Elewise", elewise("ELEWISE_ADD"), {at, flat}, {next});
    at = next;
  }
  t.y = at;
  return b.spec;
}

// Numbers between -1 and 1 without a pattern.
Halves some(size_t count, size_t seed) {
  Halves values;
  for (size_t i = 0; i < count; ++i) {
    const uint32_t bits = static_cast<uint32_t>((i + seed * 977) * 2654435761u);
    values.push_back(static_cast<uint16_t>(0x3000 | (bits >> 8 & 0x07FF) | (bits >> 4 & 0x8000)));
  }
  return values;
}

// A segment for the embedding and one for each layer.
Numbers by_layer(const GraphSpec& spec) {
  Numbers numbers;
  for (size_t i = 0; i < spec.nodes.size(); ++i) {
    numbers.push_back(i == 0 ? 0 : static_cast<int>((i - 1) * kLayers / (spec.nodes.size() - 1)) + 1);
  }
  return numbers;
}

// Device, weights, caches, and the steps of a short generation.
class Decoder {
 public:
  explicit Decoder(bool async = false) : weights_(std::make_shared<DeviceWeights>(open(async))) {
    GraphSpec spec = decoder(t_);
    const Numbers numbers = by_layer(spec);
    program_ = std::make_unique<DeviceProgram>(weights_, std::move(spec), numbers);
    size_t seed = 0;
    for (const auto& [name, shape] : t_.weights) {
      const int64_t columns = shape.size() == 1 ? 1 : shape[1];
      const Halves values = some(static_cast<size_t>(shape[0] * columns), ++seed);
      if (name != "words") {
        weights_->set(name, values.data(), DataType::f16, shape);
        continue;
      }
      for (int64_t begin = 0; begin < kWords; begin += kWords / 2) {
        weights_->set_part(name, begin, values.data() + begin * columns, DataType::f16, {kWords / 2, columns}, kWords);
      }
    }
    for (int tensor : t_.caches) {
      allocate_cache();
      program_->set({{tensor, caches_.back().data(), {kBlocks, kBlock, kHeads, kHeadSize}, true}});
    }
  }
  void record() { program_->set_recording(true); }
  ~Decoder() { weights_->device()->discard(std::move(caches_)); }

  // The results of all steps.
  Halves generate() {
    Halves all;
    std::vector<int32_t> tables = {2, 1};
    program_->set_constants({argument(t_.tables, tables, {kSequences, 1})});
    for (int step = 0; step < kSteps; ++step) {
      constexpr int kSlots = int{kBlock};
      std::vector<int32_t> ids = {3 * step, 15 - step}, slots = {2 * kSlots + step, kSlots + step};
      std::vector<int32_t> lengths = {step + 1, step + 1};
      Halves y(kSequences * kHidden);
      program_->run({argument(t_.ids, ids, {kSequences}), argument(t_.slots, slots, {kSequences}),
                     argument(t_.lengths, lengths, {kSequences}), argument(t_.y, y, {kSequences, kHidden})});
      all.insert(all.end(), y.begin(), y.end());
    }
    return all;
  }

 private:
  void allocate_cache() {
    const auto lease = weights_->device()->lease();
    caches_.push_back(weights_->device()->allocate(kCacheBytes, "a cache"));
  }
  static std::shared_ptr<Device> open(bool async) { return device_with({.execute_async = async}); }

  std::shared_ptr<DeviceWeights> weights_;
  Tensors t_;
  std::unique_ptr<DeviceProgram> program_;
  std::vector<ascend::DeviceMemory> caches_;
};

const Halves& expected() {
  static const Halves kExpected = Decoder().generate();
  return kExpected;
}

// Codes of ATB and of ACL, and an unknown one.
constexpr int32_t kStatuses[] = {1, 4, 8, 26, 27, 107003, 207001, 507015, 987654};

// A message that contains the code or its object.
bool useful(const std::string& message, int32_t status) {
  return message.size() > 20 && (has(message, std::to_string(status)) || has(message, "does not tell its name"));
}

void complain(const std::string& what, size_t call, int32_t status, const std::string& message) {
  report(what.c_str(), static_cast<int>(call), "status " + std::to_string(status) + ": '" + message + "'");
}

}  // namespace

TEST(the_decoder_gives_numbers_that_depend_on_its_caches) {
  const Halves result = expected();
  CHECK(result.size() == kSteps * kSequences * kHidden);
  CHECK(std::none_of(result.begin(), result.end(), [](uint16_t bits) { return (bits & 0x7C00) == 0x7C00; }));
  CHECK(std::set<uint16_t>(result.begin(), result.end()).size() > 50);
  CHECK(Decoder(true).generate() == result);
}

TEST(each_call_from_the_opening_of_a_device_to_its_end_may_fail) {
  const Alive before = alive();
  sim::set_logging(true);
  CHECK(Decoder().generate() == expected());
  const std::vector<std::string> calls = sim::call_log();
  sim::set_logging(false);
  CHECK(calls.size() > 100 && alive() == before);
  // Failures of calls that release objects in destructors cannot be reported: no call follows.
  const std::set<std::string> silent = {"aclrtGetDevice", "aclrtSetDevice",    "aclrtSynchronizeStream",
                                        "aclrtFree",      "aclrtFreeHost",     "DestroyOperation",
                                        "DestroyContext", "aclrtDestroyStream"};
  for (size_t i = 0; i < calls.size(); ++i) {
    const int32_t status = kStatuses[i % std::size(kStatuses)];
    sim::inject("", i, status);
    const std::string message = error_of([] { CHECK(Decoder().generate() == expected()); });
    const std::string name = calls[i].substr(0, calls[i].find(' '));
    const bool fine = message.empty() ? silent.contains(name) : useful(message, status);
    if (!fine || sim::fault_pending() || alive() != before) complain(calls[i], i, status, message);
    sim::clear_faults();
  }
  CHECK(Decoder().generate() == expected());
}

TEST(each_call_of_a_generation_may_fail_with_any_status) {
  for (bool async : {false, true}) {
    Decoder one(async);
    CHECK(one.generate() == expected());
    const uint64_t begin = sim::calls();
    CHECK(one.generate() == expected());
    const uint64_t calls = sim::calls() - begin;
    const Alive before = alive();
    for (uint64_t i = 0; i < calls; ++i) {
      for (int32_t status : kStatuses) {
        sim::inject("", i, status);
        std::string message = error_of([&] { one.generate(); });
        if (sim::fault_pending()) continue;  // of two threads one may be a call earlier
        // A failure of the last release is reported by the next call.
        if (message.empty()) message = error_of([&] { one.generate(); });
        if (!useful(message, status)) complain("call", i, status, message);
        if (one.generate() != expected() || alive() != before) complain("after call", i, status, message);
      }
    }
    sim::clear_faults();
  }
}

TEST(each_call_of_a_recorded_generation_may_fail) {
  for (bool async : {false, true}) {
    Decoder one(async);
    one.record();
    const uint64_t begin = sim::calls();
    CHECK(one.generate() == expected());
    const uint64_t calls = sim::calls() - begin;
    const Alive before = alive();
    for (uint64_t i = 0; i < calls; ++i) {
      const int32_t status = kStatuses[i % std::size(kStatuses)];
      sim::inject("", i, status);
      std::string message = error_of([&] { one.generate(); });
      if (sim::fault_pending()) continue;
      if (message.empty()) message = error_of([&] { one.generate(); });
      if (!useful(message, status)) complain("call", i, status, message);
      if (one.generate() != expected() || alive() != before) complain("after call", i, status, message);
    }
    sim::clear_faults();
  }
}

TEST(each_kernel_of_a_generation_may_fail_on_the_device) {
  for (bool async : {false, true}) {
    Decoder one(async);
    const uint64_t begin = sim::counters().launches;
    CHECK(one.generate() == expected());
    const uint64_t kernels = sim::counters().launches - begin;
    const Alive before = alive();
    for (uint64_t i = 0; i < kernels; ++i) {
      for (int32_t status : {507015, 507000}) {
        sim::inject_async(i, status);
        const std::string message = error_of([&] { one.generate(); });
        if (!useful(message, status) || !has(message, "failed on the device")) complain("kernel", i, status, message);
        if (one.generate() != expected() || alive() != before) complain("after kernel", i, status, message);
      }
    }
  }
}

TEST(memory_may_end_at_any_allocation) {
  const Alive before = alive();
  size_t refused = 0;
  for (uint64_t room = 0;; room += 1024) {
    sim::set_memory(before.bytes + room);
    const std::string message = error_of([] { CHECK(Decoder().generate() == expected()); });
    CHECK(alive() == before);
    if (message.empty()) break;
    ++refused;
    CHECK(has(message, "MiB are free; ACL reports error 207001, aclrtMalloc: the device has no"));
    if (failures > 0) break;
  }
  CHECK(refused > 20);
  sim::set_memory(uint64_t{64} << 30);
}

TEST_MAIN()
