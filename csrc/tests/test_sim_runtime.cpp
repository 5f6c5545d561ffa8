// SPDX-License-Identifier: Apache-2.0
// The host simulator's memory, streams, contexts, faults and log: behaviour and refusals.
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <cstring>
#include <future>
#include <thread>

#include "sim_card.h"
#include "stream.h"

using namespace atb_core::test;

namespace {

constexpr uint64_t kMemory = uint64_t{64} << 30;

// True if a function, run in a child process, ends with an invalid memory access.
template <typename Fn>
bool crashes(Fn&& fn) {
  const pid_t child = fork();
  if (child == 0) {
    std::signal(SIGSEGV, SIG_DFL);  // a sanitizer would report and exit
    std::signal(SIGBUS, SIG_DFL);
    fn();
    _exit(0);
  }
  int status = 0;
  waitpid(child, &status, 0);
  return WIFSIGNALED(status) && (WTERMSIG(status) == SIGSEGV || WTERMSIG(status) == SIGBUS);
}

aclrtEvent event() {
  aclrtEvent made = nullptr;
  CHECK(aclrtCreateEventWithFlag(&made, ACL_EVENT_TIME_LINE) == ACL_SUCCESS);
  return made;
}

// Restores the memory limit.
struct Limit {
  explicit Limit(uint64_t bytes) { sim::set_memory(bytes); }
  ~Limit() { sim::set_memory(kMemory); }
};

}  // namespace

TEST(the_host_cannot_touch_memory_of_the_device) {
  Card card;
  auto* volatile address = static_cast<volatile char*>(card.allocate(64));
  CHECK(crashes([&] { (void)*address; }));
  CHECK(crashes([&] { *address = 1; }));
  CHECK(!crashes([] {}));
}

TEST(the_window_shows_what_lies_on_the_device) {
  Card card;
  const Tensor tensor = card.tensor(2.5f);
  auto* seen = static_cast<float*>(sim::window(tensor.deviceData));
  CHECK(seen[kCount - 1] == 2.5f);
  seen[0] = 4.0f;
  CHECK(first(tensor) == 4.0f);
  CHECK(sim::device_address(seen + 1) == static_cast<char*>(tensor.deviceData) + 4);
  char host = 0;
  CHECK(sim::window(&host) == nullptr && sim::device_address(&host) == nullptr && sim::window(seen) == nullptr);
}

TEST(memory_is_accounted_from_its_allocation_to_its_release) {
  Card card;
  const sim::Counters before = sim::counters();
  card.allocate(1000);
  sim::reset_peak();
  card.allocate(1);
  const sim::Counters during = sim::counters();
  CHECK(during.live_bytes == before.live_bytes + 1536 && during.peak_bytes == during.live_bytes);
  CHECK(during.live_allocations == before.live_allocations + 2 && during.allocations == before.allocations + 2);
  card.free_last();
  CHECK(sim::counters().peak_bytes == during.live_bytes && sim::counters().live_bytes == before.live_bytes + 1024);
  sim::reset_peak();
  CHECK(sim::counters().peak_bytes == before.live_bytes + 1024);
}

TEST(memory_is_given_back_once_and_only_by_its_first_address) {
  Card card;
  char host = 0;
  auto* address = static_cast<char*>(card.allocate(64));
  for (void* wrong : {static_cast<void*>(address + 1), static_cast<void*>(&host), static_cast<void*>(nullptr)}) {
    CHECK(aclrtFree(wrong) == ACL_ERROR_RT_PARAM_INVALID && says("nothing was allocated"));
  }
  card.free_last();
  CHECK(aclrtFree(address) == ACL_ERROR_RT_PARAM_INVALID);
}

TEST(freed_memory_is_used_again_and_does_not_keep_its_content) {
  Card card;
  void* place = card.tensor(3.0f).deviceData;
  card.free_last();
  CHECK(card.allocate(kBytes) == place);
  float value = 3.0f;
  CHECK(aclrtMemcpy(&value, 4, place, 4, ACL_MEMCPY_DEVICE_TO_HOST) == ACL_SUCCESS && std::isnan(value));
}

TEST(memory_ends_at_the_limit) {
  Card card;
  const Limit limit(sim::counters().live_bytes + 4096);
  void* address = nullptr;
  CHECK(malloc_status(&address, 4097) == ACL_ERROR_RT_MEMORY_ALLOCATION && address == nullptr && says("no 4097 bytes"));
  size_t free = 0, total = 0;
  CHECK(aclrtGetMemInfo(ACL_HBM_MEM, &free, &total) == ACL_SUCCESS && free == 4096);
  CHECK(malloc_status(&address, 4096) == ACL_SUCCESS);
  CHECK(aclrtGetMemInfo(ACL_HBM_MEM, &free, &total) == ACL_SUCCESS && free == 0);
  sim::set_memory(1);
  CHECK(aclrtGetMemInfo(ACL_HBM_MEM, &free, &total) == ACL_SUCCESS && free == 0 && total == 1);
  CHECK(aclrtFree(address) == ACL_SUCCESS);
}

TEST(impossible_amounts_of_memory_are_refused) {
  Card card;
  const Limit limit(~uint64_t{0});
  void* address = nullptr;
  for (size_t bytes : {~size_t{0}, ~size_t{0} - 511, size_t{1} << 62}) {
    CHECK(malloc_status(&address, bytes) == ACL_ERROR_RT_MEMORY_ALLOCATION);
  }
  CHECK(malloc_status(&address, 0) == ACL_ERROR_RT_PARAM_INVALID);
  CHECK(malloc_status(nullptr, 64) == ACL_ERROR_INVALID_PARAM && says("null pointer"));
  size_t free = 0, total = 0;
  CHECK(aclrtGetMemInfo(ACL_HBM_MEM, &free, &total) == ACL_SUCCESS && free + sim::counters().live_bytes == total);
}

TEST(copies_are_counted_by_direction) {
  Card card;
  void *a = card.allocate(64), *b = card.allocate(64);
  char host[64] = {};
  const sim::Counters before = sim::counters();
  CHECK(aclrtMemcpy(a, 64, host, 64, ACL_MEMCPY_HOST_TO_DEVICE) == ACL_SUCCESS);
  CHECK(aclrtMemcpyAsync(b, 64, a, 32, ACL_MEMCPY_DEVICE_TO_DEVICE, card.stream) == ACL_SUCCESS);
  CHECK(aclrtMemcpyAsync(host, 64, b, 16, ACL_MEMCPY_DEVICE_TO_HOST, card.stream) == ACL_SUCCESS);
  CHECK(card.wait() == ACL_SUCCESS);
  const sim::Counters after = sim::counters();
  CHECK(after.copies_h2d == before.copies_h2d + 1 && after.bytes_h2d == before.bytes_h2d + 64);
  CHECK(after.copies_d2d == before.copies_d2d + 1 && after.bytes_d2d == before.bytes_d2d + 32);
  CHECK(after.copies_d2h == before.copies_d2h + 1 && after.bytes_d2h == before.bytes_d2h + 16);
}

TEST(copies_are_refused_past_an_end_or_in_the_wrong_direction) {
  Card card;
  void* address = card.allocate(64);
  std::vector<char> host(1 << 16);
  const auto refused = [&](void* to, size_t room, const void* from, size_t bytes, aclrtMemcpyKind kind) {
    return aclrtMemcpy(to, room, from, bytes, kind) == ACL_ERROR_RT_PARAM_INVALID &&
           aclrtMemcpyAsync(to, room, from, bytes, kind, card.stream) == ACL_ERROR_RT_PARAM_INVALID;
  };
  CHECK(refused(address, 32, host.data(), 64, ACL_MEMCPY_HOST_TO_DEVICE) && says("do not fit into 32"));
  CHECK(refused(address, 1 << 16, host.data(), 1 << 16, ACL_MEMCPY_HOST_TO_DEVICE) && says("only 512 bytes"));
  CHECK(refused(host.data(), 64, address, 64, ACL_MEMCPY_HOST_TO_DEVICE) && says("no address of the device"));
  CHECK(refused(host.data(), 64, address, 64, ACL_MEMCPY_HOST_TO_HOST) && says("address of the host is wanted"));
  card.free_last();
  CHECK(refused(address, 64, host.data(), 64, ACL_MEMCPY_HOST_TO_DEVICE) && says("nothing is allocated there"));
  CHECK(card.wait() == ACL_SUCCESS);
}

TEST(memory_is_filled_at_once_or_in_the_order_of_a_stream) {
  Card card;
  void* address = card.allocate(64);
  const auto* seen = static_cast<const unsigned char*>(sim::window(address));
  CHECK(aclrtMemset(address, 64, 7, 64) == ACL_SUCCESS && seen[0] == 7 && seen[63] == 7);
  CHECK(aclrtMemsetAsync(address, 64, 9, 32, card.stream) == ACL_SUCCESS && card.wait() == ACL_SUCCESS);
  CHECK(seen[31] == 9 && seen[32] == 7);
  CHECK(aclrtMemset(address, 32, 0, 64) == ACL_ERROR_RT_PARAM_INVALID);
  CHECK(aclrtMemsetAsync(address, 32, 0, 64, card.stream) == ACL_ERROR_RT_PARAM_INVALID);
  char host[64] = {};
  CHECK(aclrtMemset(host, 64, 0, 64) == ACL_ERROR_RT_PARAM_INVALID);
}

TEST(what_fails_on_a_stream_is_told_by_the_next_wait_and_only_by_it) {
  Card card, other;
  void* address = card.allocate(64);
  CHECK(aclrtMemsetAsync(address, 64, 1, 64, card.stream) == ACL_SUCCESS && card.wait() == ACL_SUCCESS);
  VariantPack pack = card.pack(1, 2);
  Operation* operation = made();
  uint64_t size = 0;
  sim::inject_async(0, ACL_ERROR_RT_AICORE_EXCEPTION);
  CHECK(operation->Setup(pack, size, card.context) == NO_ERROR);
  CHECK(operation->Execute(pack, nullptr, size, card.context) == NO_ERROR);
  CHECK(aclrtMemsetAsync(address, 64, 2, 64, card.stream) == ACL_SUCCESS);
  CHECK(other.wait() == ACL_SUCCESS);
  CHECK(card.wait() == ACL_ERROR_RT_AICORE_EXCEPTION && says("was told to fail with 507015"));
  CHECK(static_cast<const char*>(sim::window(address))[0] == 1);  // what was queued behind a failure is dropped
  CHECK(card.wait() == ACL_SUCCESS && first(pack.outTensors.at(0)) == 0.0f);
  CHECK(aclrtMemsetAsync(address, 64, 3, 64, card.stream) == ACL_SUCCESS && card.wait() == ACL_SUCCESS);
  CHECK(static_cast<const char*>(sim::window(address))[0] == 3);
  DestroyOperation(operation);
}

TEST(a_destroyed_stream_is_refused_everywhere) {
  Card card;
  void* address = card.allocate(64);
  const uint64_t streams = sim::counters().live_streams;
  CHECK(aclrtDestroyStream(card.stream) == ACL_SUCCESS && sim::counters().live_streams == streams - 1);
  CHECK(aclrtDestroyStream(card.stream) == ACL_ERROR_RT_STREAM_CONTEXT && says("no such stream"));
  CHECK(card.wait() == ACL_ERROR_RT_STREAM_CONTEXT && says("aclrtSynchronizeStream: there is no such stream"));
  CHECK(aclrtMemsetAsync(address, 64, 1, 64, card.stream) == ACL_ERROR_RT_STREAM_CONTEXT);
  CHECK(card.context->SetExecuteStream(card.stream) == ERROR_INVALID_STREAM);
  CHECK(aclrtCreateStream(nullptr) == ACL_ERROR_INVALID_PARAM);
  card.stream = nullptr;
}

TEST(a_stream_ends_its_work_before_it_is_destroyed) {
  Card card;
  void* address = card.allocate(64);
  for (int value = 0; value < 100; ++value) aclrtMemsetAsync(address, 64, value, 64, card.stream);
  CHECK(aclrtDestroyStream(card.stream) == ACL_SUCCESS);
  CHECK(static_cast<const char*>(sim::window(address))[63] == 99);
  card.stream = nullptr;
}

TEST(events_tell_the_time_between_two_moments_of_a_stream) {
  Card card;
  void* address = card.allocate(64);
  const uint64_t events = sim::counters().live_events;
  aclrtEvent first = event(), last = event();
  CHECK(sim::counters().live_events == events + 2);
  float ms = -1;
  CHECK(aclrtRecordEvent(first, card.stream) == ACL_SUCCESS);
  for (int value = 0; value < 100; ++value) aclrtMemsetAsync(address, 64, value, 64, card.stream);
  CHECK(aclrtRecordEvent(last, card.stream) == ACL_SUCCESS && card.wait() == ACL_SUCCESS);
  CHECK(aclrtEventElapsedTime(&ms, first, last) == ACL_SUCCESS && ms > 0);
  CHECK(aclrtEventElapsedTime(&ms, first, first) == ACL_SUCCESS && ms == 0);
  // A later record takes the place of an earlier one.
  CHECK(aclrtRecordEvent(first, card.stream) == ACL_SUCCESS && card.wait() == ACL_SUCCESS);
  CHECK(aclrtEventElapsedTime(&ms, first, last) == ACL_ERROR_RT_EVENT_TIMESTAMP_REVERSAL && says("before the start"));
  CHECK(aclrtEventElapsedTime(&ms, last, first) == ACL_SUCCESS && ms > 0);
  CHECK(aclrtDestroyEvent(first) == ACL_SUCCESS && aclrtDestroyEvent(last) == ACL_SUCCESS);
  CHECK(sim::counters().live_events == events);
}

TEST(events_are_refused_where_there_is_no_time_of_them) {
  Card card, other;
  aclrtEvent open = event(), here = event(), there = event();
  float ms = 0;
  CHECK(aclrtRecordEvent(here, card.stream) == ACL_SUCCESS && card.wait() == ACL_SUCCESS);
  CHECK(aclrtRecordEvent(there, other.stream) == ACL_SUCCESS && other.wait() == ACL_SUCCESS);
  CHECK(aclrtEventElapsedTime(&ms, here, open) == ACL_ERROR_RT_EVENT_TIMESTAMP_INVALID && says("was not recorded"));
  CHECK(aclrtEventElapsedTime(&ms, here, there) == ACL_ERROR_RT_EVENT_TIMESTAMP_INVALID && says("of two streams"));
  CHECK(aclrtEventElapsedTime(nullptr, here, here) == ACL_ERROR_INVALID_PARAM);
  // An event that a failure keeps its stream from has no time either.
  sim::inject_async(0, ACL_ERROR_RT_AICORE_EXCEPTION);
  VariantPack pack = card.pack(1, 2);
  Operation* operation = made();
  uint64_t size = 0;
  CHECK(operation->Setup(pack, size, card.context) == NO_ERROR);
  CHECK(operation->Execute(pack, nullptr, size, card.context) == NO_ERROR);
  CHECK(aclrtRecordEvent(open, card.stream) == ACL_SUCCESS && card.wait() == ACL_ERROR_RT_AICORE_EXCEPTION);
  CHECK(aclrtEventElapsedTime(&ms, here, open) == ACL_ERROR_RT_EVENT_TIMESTAMP_INVALID);
  DestroyOperation(operation);
  aclrtEvent none = nullptr;
  CHECK(aclrtCreateEventWithFlag(&none, ACL_EVENT_SYNC) == ACL_ERROR_INVALID_PARAM && says("TIME_LINE alone"));
  CHECK(aclrtCreateEventWithFlag(nullptr, ACL_EVENT_TIME_LINE) == ACL_ERROR_INVALID_PARAM);
  for (aclrtEvent made : {open, here, there}) CHECK(aclrtDestroyEvent(made) == ACL_SUCCESS);
  for (aclrtEvent gone : {here, none}) {
    CHECK(aclrtDestroyEvent(gone) == ACL_ERROR_RT_PARAM_INVALID && says("no such event"));
    CHECK(aclrtRecordEvent(gone, card.stream) == ACL_ERROR_RT_PARAM_INVALID);
    CHECK(aclrtEventElapsedTime(&ms, gone, gone) == ACL_ERROR_RT_PARAM_INVALID);
  }
}

TEST(an_event_is_kept_until_its_stream_has_passed_it) {
  Card card;
  aclrtEvent early = event();
  std::promise<void> begun, go;
  CHECK(sim::enqueue(card.stream, [&] {
    begun.set_value();
    go.get_future().wait();
    return ACL_SUCCESS;
  }));
  begun.get_future().wait();
  CHECK(aclrtRecordEvent(early, card.stream) == ACL_SUCCESS);
  float ms = 0;
  CHECK(aclrtDestroyEvent(early) == ACL_ERROR_RT_PARAM_INVALID && says("a stream has not come to it"));
  CHECK(aclrtEventElapsedTime(&ms, early, early) == ACL_ERROR_RT_EVENT_TIMESTAMP_INVALID);
  go.set_value();
  CHECK(card.wait() == ACL_SUCCESS && aclrtDestroyEvent(early) == ACL_SUCCESS);
  aclrtStream gone = card.stream;
  CHECK(aclrtDestroyStream(gone) == ACL_SUCCESS);
  card.stream = nullptr;
  aclrtEvent late = event();
  CHECK(aclrtRecordEvent(late, gone) == ACL_ERROR_RT_STREAM_CONTEXT && aclrtDestroyEvent(late) == ACL_SUCCESS);
}

TEST(contexts_are_made_and_destroyed_once) {
  Card card;
  const uint64_t contexts = sim::counters().live_contexts;
  Context* context = nullptr;
  CHECK(CreateContext(&context) == NO_ERROR && sim::counters().live_contexts == contexts + 1);
  CHECK(context->GetExecuteStream() == nullptr && !context->GetAsyncTilingCopyStatus());
  CHECK(context->SetAsyncTilingCopyStatus(true) == NO_ERROR && context->GetAsyncTilingCopyStatus());
  CHECK(DestroyContext(context) == NO_ERROR && sim::counters().live_contexts == contexts);
  CHECK(DestroyContext(context) == ERROR_INVALID_CONTEXT_ADDR && says("no such context"));
  CHECK(DestroyContext(nullptr) == ERROR_INVALID_CONTEXT_ADDR);
  CHECK(CreateContext(nullptr) == ERROR_INVALID_PARAM && says("context is null"));
}

TEST(each_thread_has_to_choose_its_device) {
  Card card;
  void* address = card.allocate(64);
  std::thread([&] {
    CHECK(aclrtMemset(address, 64, 1, 64) == ACL_ERROR_INVALID_DEVICE && says("aclrtSetDevice has not been called"));
    CHECK(aclrtSetDevice(1) == ACL_ERROR_INVALID_DEVICE && says("no device 1, their number is 1"));
    CHECK(aclrtSetDevice(0) == ACL_SUCCESS && aclrtMemset(address, 64, 1, 64) == ACL_SUCCESS);
    CHECK(aclrtResetDevice(0) == ACL_SUCCESS && aclrtMemset(address, 64, 1, 64) == ACL_ERROR_INVALID_DEVICE);
  }).join();
  CHECK(aclrtMemset(address, 64, 1, 64) == ACL_SUCCESS);
}

TEST(each_thread_has_a_device_of_its_own_of_those_that_there_are) {
  Card card;
  sim::set_devices(4);
  uint32_t count = 0;
  CHECK(aclrtGetDeviceCount(&count) == ACL_SUCCESS && count == 4);
  std::thread([] {
    int32_t device = -1;
    CHECK(aclrtGetDevice(&device) == ACL_ERROR_RT_CONTEXT_NULL && device == -1 && says("chosen no device"));
    CHECK(aclrtSetDevice(4) == ACL_ERROR_INVALID_DEVICE && aclrtSetDevice(-1) == ACL_ERROR_INVALID_DEVICE);
    CHECK(aclrtSetDevice(3) == ACL_SUCCESS && aclrtGetDevice(&device) == ACL_SUCCESS && device == 3);
    CHECK(aclrtResetDevice(2) == ACL_SUCCESS && aclrtGetDevice(&device) == ACL_SUCCESS);
    CHECK(aclrtResetDevice(7) == ACL_ERROR_INVALID_DEVICE);
    CHECK(aclrtResetDevice(3) == ACL_SUCCESS && aclrtGetDevice(&device) == ACL_ERROR_RT_CONTEXT_NULL);
  }).join();
  int32_t device = -1;
  CHECK(aclrtGetDevice(&device) == ACL_SUCCESS && device == 0);
  CHECK(aclrtGetDevice(nullptr) == ACL_ERROR_INVALID_PARAM);
  for (uint32_t impossible : {0u, 17u}) CHECK_THROWS(sim::set_devices(impossible), "1 to 16");
  sim::set_devices(16);
  CHECK(aclrtGetDeviceCount(&count) == ACL_SUCCESS && count == 16);
  sim::set_devices(1);
}

TEST(acl_is_started_once_before_all_else) {
  Card card;
  void* address = card.allocate(64);
  CHECK(aclInit(nullptr) == ACL_ERROR_REPEAT_INITIALIZE);
  CHECK(aclFinalize() == ACL_SUCCESS && aclFinalize() == ACL_ERROR_UNINITIALIZE);
  CHECK(aclrtMemset(address, 64, 1, 64) == ACL_ERROR_UNINITIALIZE && says("aclInit has not been called"));
  CHECK(aclrtSetDevice(0) == ACL_ERROR_UNINITIALIZE);
  CHECK(std::string(aclGetRecentErrMsg()) == sim::last_message());
  CHECK(aclInit(nullptr) == ACL_SUCCESS);
}

TEST(the_simulator_says_what_it_simulates) {
  Card card;
  uint32_t devices = 0;
  int32_t major = 0, minor = 0, patch = 0;
  CHECK(aclrtGetDeviceCount(&devices) == ACL_SUCCESS && devices == 1);
  CHECK(aclrtGetVersion(&major, &minor, &patch) == ACL_SUCCESS && major > 0);
  CHECK(aclrtGetDeviceCount(nullptr) == ACL_ERROR_INVALID_PARAM);
  CHECK(aclrtGetVersion(&major, nullptr, &patch) == ACL_ERROR_INVALID_PARAM);
  CHECK(aclrtGetMemInfo(ACL_HBM_MEM, nullptr, nullptr) == ACL_ERROR_INVALID_PARAM);
  CHECK(std::string(aclrtGetSocName()) == "Ascend910B2" && Utils::GetAtbVersion() == "8.5.0");
  sim::set_soc("Ascend310P3");
  sim::set_version("9.1.0");
  CHECK(std::string(aclrtGetSocName()) == "Ascend310P3" && Utils::GetAtbVersion() == "9.1.0");
  sim::set_soc("Ascend910B2");
  sim::set_version("8.5.0");
}

TEST(a_fault_is_returned_by_the_call_that_it_was_meant_for) {
  Card card;
  void *address = nullptr, *none = nullptr;
  sim::inject("aclrtMalloc", 1, 4711);
  CHECK(malloc_status(&address, 64) == ACL_SUCCESS && sim::fault_pending());
  CHECK(aclrtMemset(address, 64, 0, 64) == ACL_SUCCESS && sim::fault_pending());
  CHECK(malloc_status(&none, 64) == 4711 && none == nullptr && !sim::fault_pending());
  CHECK(says("aclrtMalloc was told to fail with 4711"));
  CHECK(malloc_status(&none, 64) == ACL_SUCCESS);
  sim::inject("", 1, 42);
  CHECK(aclrtFree(none) == ACL_SUCCESS);
  CHECK(aclrtFree(address) == 42);  // and yet it is free
  CHECK(aclrtFree(address) == ACL_ERROR_RT_PARAM_INVALID);
  sim::inject("aclrtGetSocName", 0, 1);
  CHECK(aclrtGetSocName() == nullptr);
  sim::inject("aclrtMalloc", 0, 1);
  sim::inject_async(0, 1);
  sim::clear_faults();
  CHECK(!sim::fault_pending() && malloc_status(&address, 64) == ACL_SUCCESS && aclrtFree(address) == ACL_SUCCESS);
}

TEST(releases_that_are_told_to_fail_do_their_work_and_waits_have_waited) {
  Card card;
  const sim::Counters before = sim::counters();
  Context* context = nullptr;
  aclrtStream stream = nullptr;
  CHECK(CreateContext(&context) == NO_ERROR && aclrtCreateStream(&stream) == ACL_SUCCESS);
  void* address = card.allocate(64);
  for (int value = 0; value < 100; ++value) aclrtMemsetAsync(address, 64, value, 64, stream);
  sim::inject("aclrtSynchronizeStream", 0, 5);
  CHECK(aclrtSynchronizeStream(stream) == 5 && static_cast<const char*>(sim::window(address))[0] == 99);
  Operation* operation = made();
  sim::inject("DestroyOperation", 0, ERROR_INTERNAL_ERROR);
  CHECK(DestroyOperation(operation) == ERROR_INTERNAL_ERROR);
  sim::inject("DestroyContext", 0, ERROR_INTERNAL_ERROR);
  CHECK(DestroyContext(context) == ERROR_INTERNAL_ERROR);
  sim::inject("aclrtDestroyStream", 0, ACL_ERROR_RT_INTERNAL_ERROR);
  CHECK(aclrtDestroyStream(stream) == ACL_ERROR_RT_INTERNAL_ERROR);
  const sim::Counters after = sim::counters();
  CHECK(after.live_operations == before.live_operations && after.live_contexts == before.live_contexts);
  CHECK(after.live_streams == before.live_streams);
}

TEST(the_log_has_the_calls_in_order) {
  Card card;
  sim::set_logging(true);
  const uint64_t calls = sim::calls();
  void* address = card.allocate(64);
  CHECK(aclrtMemset(address, 64, 0, 64) == ACL_SUCCESS);
  card.free_last();
  CHECK((sim::call_log() == std::vector<std::string>{"aclrtMalloc 64", "aclrtMemset 64", "aclrtFree"}));
  CHECK(sim::calls() == calls + 3);
  sim::set_logging(false);
  CHECK(sim::call_log().empty());
  card.allocate(64);
  CHECK(sim::call_log().empty());
}

TEST_MAIN()
