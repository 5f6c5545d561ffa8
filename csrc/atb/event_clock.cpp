// SPDX-License-Identifier: Apache-2.0
#include "atb/event_clock.h"

#include <cmath>

#include "atb/status.h"
#include "graph/run_times.h"

namespace atb_core::ascend {

EventClock::EventClock(Device& device, size_t moments) : device_(device) {
  try {
    while (events_.size() <= moments) {
      aclrtEvent event = nullptr;
      check_acl(aclrtCreateEventWithFlag(&event, ACL_EVENT_TIME_LINE), "making an event for times of nodes failed");
      events_.push_back(event);
    }
    begin_ = steady_now();
    mark();
    device_.synchronize();
  } catch (...) {
    device_.settle();
    destroy();
    throw;
  }
}

void EventClock::destroy() {
  for (aclrtEvent event : events_) device_.released("an event", aclrtDestroyEvent(event));
}

void EventClock::mark() {
  check_acl(aclrtRecordEvent(events_[marked_++], device_.stream()), "recording an event for times of nodes failed");
}

std::vector<int64_t> EventClock::moments() const {
  std::vector<int64_t> result;
  for (size_t i = 1; i < marked_; ++i) {
    float milliseconds = 0;
    check_acl(aclrtEventElapsedTime(&milliseconds, events_[0], events_[i]), "reading the time of an event failed");
    result.push_back(begin_ + std::llround(static_cast<double>(milliseconds) * 1e6));
  }
  return result;
}

}  // namespace atb_core::ascend
