// SPDX-License-Identifier: Apache-2.0
// Mutexes that no thread holds while the process forks, so that a child can go on with the objects that they guard.
#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>
#include <mutex>
#include <thread>

#include "atb_core/error.h"

namespace atb_core {

// Counts the threads that hold a ForkSafeMutex. A fork closes the gate, waits until all of them have left, and opens it
// again in both processes.
class ForkGate {
 public:
  // Waits until no other thread is inside, at most for `patience`, and keeps others out until opened. The caller must
  // not hold the GIL, which the threads inside may need.
  void close(std::chrono::milliseconds patience) {
    closers_.fetch_add(1);
    const auto start = std::chrono::steady_clock::now();
    const int32_t own = depth() > 0 ? 1 : 0;
    while (!(alone() = inside_.load() <= own) && std::chrono::steady_clock::now() - start < patience) {
      std::this_thread::sleep_for(std::chrono::microseconds(50));
    }
  }

  void open_in_parent() {
    closers_.fetch_sub(1);
    closers_.notify_all();
  }

  // The only thread of the child is the one that forked.
  void open_in_child() {
    inside_.store(depth() > 0 ? 1 : 0);
    closers_.store(0);
    if (!alone()) abandoned_.store(true);
  }

  // Throws Error in a child whose parent forked although a thread was inside.
  void enter() {
    if (abandoned_.load(std::memory_order_relaxed)) {
      fail(
          "this process was forked while another thread was running the engine: fork when it is idle, or start "
          "processes with 'spawn'");
    }
    if (depth()++ > 0) return;
    while (true) {
      inside_.fetch_add(1);
      const int32_t closers = closers_.load();
      if (closers == 0) return;
      inside_.fetch_sub(1);
      closers_.wait(closers);
    }
  }

  void leave() {
    if (--depth() == 0) inside_.fetch_sub(1);
  }

  static ForkGate& instance() {
    static ForkGate gate;
    return gate;
  }

 private:
  // The mutexes that this thread holds. It does not wait for the gate with one of them: the fork waits for it.
  static int& depth() {
    static thread_local int held = 0;
    return held;
  }

  // True if this thread has closed the gate with no other thread inside.
  static bool& alone() {
    static thread_local bool value = true;
    return value;
  }

  std::atomic<int32_t> inside_{0}, closers_{0};
  std::atomic<bool> abandoned_{false};
};

// A std::mutex inside the gate. A thread releases the GIL before it locks one.
class ForkSafeMutex {
 public:
  void lock() {
    ForkGate::instance().enter();
    mutex_.lock();
  }
  bool try_lock() {
    ForkGate::instance().enter();
    if (mutex_.try_lock()) return true;
    ForkGate::instance().leave();
    return false;
  }
  void unlock() {
    mutex_.unlock();
    ForkGate::instance().leave();
  }

 private:
  std::mutex mutex_;
};

}  // namespace atb_core
