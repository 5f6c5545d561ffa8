// SPDX-License-Identifier: Apache-2.0
#include "state.h"

#include <charconv>
#include <cstdlib>
#include <mutex>
#include <stdexcept>

#include "operation_base.h"

namespace atb::sim {
namespace {

std::string environment(const char* name, const char* fallback) {
  const char* value = std::getenv(name);
  return value == nullptr || *value == '\0' ? fallback : value;
}

uint64_t environment_number(const char* name, uint64_t fallback, const char* what) {
  const std::string text = environment(name, std::to_string(fallback).c_str());
  uint64_t number = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  if (error == std::errc() && end == text.data() + text.size()) return number;
  throw std::invalid_argument(std::string(name) + "=" + text + " is no number of " + what);
}

uint32_t checked_devices(uint64_t count) {
  constexpr uint64_t kMost = 16;
  if (count >= 1 && count <= kMost) return static_cast<uint32_t>(count);
  throw std::invalid_argument("there can be 1 to 16 simulated devices, not " + std::to_string(count));
}

struct Fault {
  std::string call;
  uint64_t left;
  int32_t status;
};

struct State {
  std::mutex mutex;
  Counters counters{};
  bool logging = false;
  std::vector<std::string> log;
  std::optional<Fault> fault, kernel_fault;
  uint64_t calls = 0;
  std::string soc = environment("ATB_SIM_SOC", "Ascend910B2");
  std::string version = environment("ATB_SIM_VERSION", "8.5.0");
  uint64_t memory = environment_number("ATB_SIM_MEMORY", uint64_t{64} << 30, "bytes");
  uint32_t devices = checked_devices(environment_number("ATB_SIM_DEVICES", 1, "devices"));
  std::string message;
};

// Never destroyed: streams may still work when the process ends.
State& state() {
  static State* const kState = new State;
  return *kState;
}

std::optional<int32_t> due(std::optional<Fault>& fault, const char* call) {
  if (!fault || (!fault->call.empty() && fault->call != call)) return std::nullopt;
  if (fault->left-- > 0) return std::nullopt;
  const int32_t status = fault->status;
  fault.reset();
  return status;
}

}  // namespace

std::optional<int32_t> fault(const char* call, const std::string& detail) {
  State& s = state();
  const std::lock_guard lock(s.mutex);
  ++s.calls;
  if (s.logging) s.log.push_back(detail.empty() ? call : std::string(call) + ' ' + detail);
  const auto status = due(s.fault, call);
  if (status) s.message = std::string(call) + " was told to fail with " + std::to_string(*status);
  return status;
}

void warn(const std::string& sentence) {
  State& s = state();
  const std::lock_guard lock(s.mutex);
  if (s.logging) s.log.push_back("warning: " + sentence);
}

std::optional<int32_t> kernel_fault() {
  State& s = state();
  const std::lock_guard lock(s.mutex);
  return due(s.kernel_fault, "");
}

namespace detail {

Counters& lock_counters() {
  state().mutex.lock();
  return state().counters;
}

void unlock_counters() { state().mutex.unlock(); }

}  // namespace detail

void explain(const std::string& sentence) {
  const std::lock_guard lock(state().mutex);
  state().message = sentence;
}

std::string soc() {
  const std::lock_guard lock(state().mutex);
  return state().soc;
}

std::string version() {
  const std::lock_guard lock(state().mutex);
  return state().version;
}

uint64_t memory_limit() {
  const std::lock_guard lock(state().mutex);
  return state().memory;
}

Counters counters() {
  const std::lock_guard lock(state().mutex);
  return state().counters;
}

void reset_peak() {
  account([](Counters& now) { now.peak_bytes = now.live_bytes; });
}

void set_logging(bool on) {
  const std::lock_guard lock(state().mutex);
  state().logging = on;
  state().log.clear();
}

std::vector<std::string> call_log() {
  const std::lock_guard lock(state().mutex);
  return state().log;
}

void inject(const std::string& call, uint64_t n, int32_t status) {
  const std::lock_guard lock(state().mutex);
  state().fault = Fault{call, n, status};
}

void inject_async(uint64_t n, int32_t status) {
  const std::lock_guard lock(state().mutex);
  state().kernel_fault = Fault{"", n, status};
}

void clear_faults() {
  const std::lock_guard lock(state().mutex);
  state().fault.reset();
  state().kernel_fault.reset();
}

bool fault_pending() {
  const std::lock_guard lock(state().mutex);
  return state().fault.has_value() || state().kernel_fault.has_value();
}

uint64_t calls() {
  const std::lock_guard lock(state().mutex);
  return state().calls;
}

uint32_t devices() {
  const std::lock_guard lock(state().mutex);
  return state().devices;
}

void set_devices(uint32_t count) {
  const uint32_t checked = checked_devices(count);
  const std::lock_guard lock(state().mutex);
  state().devices = checked;
}

void set_soc(const std::string& name) {
  const std::lock_guard lock(state().mutex);
  state().soc = name;
}

void set_version(const std::string& version) {
  const std::lock_guard lock(state().mutex);
  state().version = version;
}

void set_memory(uint64_t bytes) {
  const std::lock_guard lock(state().mutex);
  state().memory = bytes;
}

std::string last_message() {
  const std::lock_guard lock(state().mutex);
  return state().message;
}

}  // namespace atb::sim
