// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <condition_variable>
#include <deque>
#include <exception>
#include <functional>
#include <mutex>
#include <thread>

namespace atb_core::ascend {

// Runs tasks one after another on a thread of its own. After a task that throws, the others are dropped until drain()
// has thrown the error.
class LaunchQueue {
 public:
  // Calls `start` on the thread before the first task.
  explicit LaunchQueue(std::function<void()> start);
  ~LaunchQueue();
  LaunchQueue(const LaunchQueue&) = delete;
  LaunchQueue& operator=(const LaunchQueue&) = delete;

  void push(std::function<void()> task);
  // Waits for all tasks; throws the error of a task.
  void drain();
  // Drops waiting tasks and a pending error, and waits for the running task.
  void abandon() noexcept;
  bool failed() const;

 private:
  void work();

  std::function<void()> start_;
  mutable std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<std::function<void()>> tasks_;
  std::exception_ptr error_;
  bool running_ = false, closing_ = false;
  std::thread thread_;  // last: it uses the others
};

}  // namespace atb_core::ascend
