// SPDX-License-Identifier: Apache-2.0
#include "event.h"

#include <chrono>
#include <map>
#include <memory>
#include <mutex>

#include "operation_base.h"
#include "state.h"
#include "stream.h"

namespace atb::sim {
namespace {

using Clock = std::chrono::steady_clock;

std::mutex g_mutex;

struct Event {
  aclrtStream stream = nullptr;  // of the last record
  Clock::time_point when;
  bool passed = false;
};

// A stream that has an event ahead owns it, too.
std::map<aclrtEvent, std::shared_ptr<Event>>& events() {
  static auto* const kEvents = new std::map<aclrtEvent, std::shared_ptr<Event>>;
  return *kEvents;
}

}  // namespace

aclrtEvent create_event() {
  auto made = std::make_shared<Event>();
  const std::lock_guard lock(g_mutex);
  events().emplace(made.get(), made);
  account([](Counters& now) { ++now.live_events; });
  return made.get();
}

bool destroy_event(aclrtEvent event) {
  const std::lock_guard lock(g_mutex);
  const auto found = events().find(event);
  if (found == events().end() || found->second.use_count() > 1) return false;
  events().erase(found);
  account([](Counters& now) { --now.live_events; });
  return true;
}

bool record_event(aclrtEvent event, aclrtStream stream) {
  std::shared_ptr<Event> recorded;
  {
    const std::lock_guard lock(g_mutex);
    const auto found = events().find(event);
    if (found == events().end() || !is_stream(stream)) return false;
    recorded = found->second;
    recorded->stream = stream;
    recorded->passed = false;
  }
  return enqueue(stream, [recorded = std::move(recorded)] {
    const std::lock_guard lock(g_mutex);
    recorded->when = Clock::now();
    recorded->passed = true;
    return ACL_SUCCESS;
  });
}

aclError elapsed(aclrtEvent start, aclrtEvent end, float& milliseconds) {
  const std::lock_guard lock(g_mutex);
  const auto first = events().find(start), last = events().find(end);
  if (first == events().end() || last == events().end()) {
    explain("aclrtEventElapsedTime: there is no such event, or it was destroyed");
    return ACL_ERROR_RT_PARAM_INVALID;
  }
  const Event &from = *first->second, &to = *last->second;
  if (!from.passed || !to.passed) {
    explain("aclrtEventElapsedTime: an event was not recorded, or its stream has not come to it");
    return ACL_ERROR_RT_EVENT_TIMESTAMP_INVALID;
  }
  if (from.stream != to.stream) {
    explain("aclrtEventElapsedTime: the events are of two streams");
    return ACL_ERROR_RT_EVENT_TIMESTAMP_INVALID;
  }
  if (to.when < from.when) {
    explain("aclrtEventElapsedTime: the end was recorded before the start");
    return ACL_ERROR_RT_EVENT_TIMESTAMP_REVERSAL;
  }
  milliseconds = std::chrono::duration<float, std::milli>(to.when - from.when).count();
  return ACL_SUCCESS;
}

}  // namespace atb::sim
