// SPDX-License-Identifier: Apache-2.0
#include "ops/rendezvous.h"

#include <atomic>
#include <condition_variable>
#include <map>
#include <memory>
#include <mutex>
#include <stdexcept>

namespace atb::sim {
namespace {

std::atomic<int64_t> timeout_ms{60000};

// One communicator. A round has two halves: everybody has come, everybody has read.
struct Group {
  std::mutex mutex;
  std::condition_variable changed;
  std::vector<View> views;
  std::vector<bool> present;
  int come = 0, read = 0;
  uint64_t round = 0;
  std::string failure;  // of this round; whoever comes later hears it too
};

struct Groups {
  std::mutex mutex;
  std::map<std::pair<std::string, int>, std::shared_ptr<Group>> all;
};

Groups& groups() {
  static Groups instance;
  return instance;
}

std::shared_ptr<Group> group_of(const std::string& domain, int size) {
  const std::lock_guard lock(groups().mutex);
  std::shared_ptr<Group>& group = groups().all[{domain, size}];
  if (!group) {
    group = std::make_shared<Group>();
    group->views.resize(static_cast<size_t>(size));
    group->present.resize(static_cast<size_t>(size));
  }
  return group;
}

// A failed communicator is of no use any more; who asks for the domain again gets a new one.
void forget(const std::string& domain, int size, const std::shared_ptr<Group>& group) {
  const std::lock_guard lock(groups().mutex);
  const auto found = groups().all.find({domain, size});
  if (found != groups().all.end() && found->second == group) groups().all.erase(found);
}

template <typename Ready>
void wait(Group& group, std::unique_lock<std::mutex>& lock, const std::string& who, const Ready& ready) {
  const auto limit = rendezvous_timeout();
  if (!group.changed.wait_for(lock, limit, [&] { return ready() || !group.failure.empty(); })) {
    group.failure = who + " waited in vain for the other ranks";
    group.changed.notify_all();
  }
  if (!group.failure.empty()) throw std::runtime_error(group.failure);
}

void enter(Group& group, int rank, const View& mine, const std::string& who) {
  const auto at = static_cast<size_t>(rank);
  if (group.present[at]) {
    group.failure = who + " is there twice";
  } else {
    for (size_t i = 0; i < group.views.size(); ++i) {
      const View& other = group.views[i];
      if (group.present[i] && (other.dims != mine.dims || other.dtype != mine.dtype)) {
        group.failure = who + " brings another shape or type than rank " + std::to_string(i);
      }
    }
  }
  group.changed.notify_all();
  if (!group.failure.empty()) throw std::runtime_error(group.failure);
  group.views[at] = mine;
  group.present[at] = true;
  ++group.come;
}

// One round of one rank.
void take_part(Group& group, int rank, int size, const View& mine, const std::string& who,
               const std::function<void(const std::vector<View>&)>& work) {
  std::unique_lock lock(group.mutex);
  // A fast rank may be here for the next round before a slow one has left this one.
  wait(group, lock, who, [&] { return group.read == 0; });
  const uint64_t round = group.round;
  enter(group, rank, mine, who);
  wait(group, lock, who, [&] { return group.come == size; });
  lock.unlock();
  work(group.views);  // nobody writes the views before everybody has read
  lock.lock();
  ++group.read;
  if (group.read == size) {
    group.present.assign(group.present.size(), false);
    group.come = group.read = 0;
    ++group.round;
  }
  group.changed.notify_all();
  wait(group, lock, who, [&] { return group.round != round; });
}

}  // namespace

void set_rendezvous_timeout(std::chrono::milliseconds timeout) { timeout_ms = timeout.count(); }

std::chrono::milliseconds rendezvous_timeout() { return std::chrono::milliseconds(timeout_ms.load()); }

void meet(const std::string& domain, int rank, int size, const View& mine,
          const std::function<void(const std::vector<View>&)>& work) {
  const std::string who = "rank " + std::to_string(rank) + " of " + std::to_string(size) + " in '" + domain + "'";
  const std::shared_ptr<Group> group = group_of(domain, size);
  try {
    take_part(*group, rank, size, mine, who, work);
  } catch (...) {
    forget(domain, size, group);
    throw;
  }
}

}  // namespace atb::sim
