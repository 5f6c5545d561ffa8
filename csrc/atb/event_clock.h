// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <vector>

#include "atb/device.h"

namespace atb_core::ascend {

// Tells when a device's stream passed moments of a run, by events on it.
class EventClock {
 public:
  // Makes events for so many moments and waits until the stream has passed a first one, from which the others are
  // counted.
  EventClock(Device& device, size_t moments);
  // The stream has to be idle.
  ~EventClock() { destroy(); }
  EventClock(const EventClock&) = delete;
  EventClock& operator=(const EventClock&) = delete;

  // Marks the next moment: when the stream has done what it was given so far. From one thread at a time.
  void mark();
  // Returns the moments as nanoseconds of the host's steady clock, once the stream has passed them. All are early by the
  // time that the first event took to get to the device.
  std::vector<int64_t> moments() const;

 private:
  void destroy();

  Device& device_;
  std::vector<aclrtEvent> events_;
  size_t marked_ = 0;
  int64_t begin_;
};

}  // namespace atb_core::ascend
