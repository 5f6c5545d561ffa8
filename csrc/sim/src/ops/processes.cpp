// SPDX-License-Identifier: Apache-2.0
// The meeting point of ranks that are processes of one machine: rank 0 listens at a Unix socket whose name is made of
// the domain's, and each round goes through it. A process that ends closes its sockets, which the others see at once.
#include <poll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <map>
#include <memory>
#include <mutex>
#include <stdexcept>
#include <thread>
#include <utility>

#include "ops/numeric.h"
#include "ops/rendezvous.h"

namespace atb::sim {
namespace {

using Clock = std::chrono::steady_clock;

// What a rank brings to a round; its elements follow.
struct Header {
  int32_t dtype = 0, num_dims = 0;
  int64_t dims[MAX_DIM] = {};
  bool operator==(const Header&) const = default;
};

Header header_of(const View& view) {
  Header header;
  header.dtype = view.dtype;
  header.num_dims = static_cast<int32_t>(view.dims.size());
  for (size_t i = 0; i < view.dims.size() && i < MAX_DIM; ++i) header.dims[i] = view.dims[i];
  return header;
}

class Socket {
 public:
  explicit Socket(int number = -1) : number_(number) {}
  ~Socket() { close(); }
  Socket(Socket&& other) noexcept : number_(std::exchange(other.number_, -1)) {}
  Socket& operator=(Socket&& other) noexcept {
    std::swap(number_, other.number_);
    return *this;
  }
  int number() const { return number_; }
  void close() {
    if (number_ >= 0) ::close(std::exchange(number_, -1));
  }

  // A wait for data ends after this time.
  void limit(std::chrono::milliseconds time) const {
    const timeval value{time.count() / 1000, time.count() % 1000 * 1000};
    ::setsockopt(number_, SOL_SOCKET, SO_RCVTIMEO, &value, sizeof value);
  }
  // Returns true if all was sent.
  bool send(const void* data, size_t bytes) const {
    const auto* at = static_cast<const char*>(data);
    while (bytes > 0) {
      const ssize_t count = ::send(number_, at, bytes, MSG_NOSIGNAL);
      if (count < 0 && errno == EINTR) continue;
      if (count <= 0) return false;
      at += count;
      bytes -= static_cast<size_t>(count);
    }
    return true;
  }
  // Returns 0 if all came, else EAGAIN after the limit, and EPIPE if the other process has ended.
  int receive(void* data, size_t bytes) const {
    auto* at = static_cast<char*>(data);
    while (bytes > 0) {
      const ssize_t count = ::recv(number_, at, bytes, 0);
      if (count < 0 && errno == EINTR) continue;
      if (count < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)) return EAGAIN;
      if (count <= 0) return EPIPE;
      at += count;
      bytes -= static_cast<size_t>(count);
    }
    return 0;
  }
  bool is_own_user() const {
    ucred peer{};
    socklen_t size = sizeof peer;
    return ::getsockopt(number_, SOL_SOCKET, SO_PEERCRED, &peer, &size) == 0 && peer.uid == ::getuid();
  }

 private:
  int number_;
};

// An address of the abstract namespace, which has no file that could be left behind.
std::pair<sockaddr_un, socklen_t> address_of(const std::string& domain, int size) {
  const std::string whole = domain + " of " + std::to_string(size) + " for " + std::to_string(::getuid());
  const std::string name = "atb_sim " + std::to_string(std::hash<std::string>{}(whole));
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  std::memcpy(address.sun_path + 1, name.data(), name.size());
  return {address, static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + 1 + name.size())};
}

class Communicator {
 public:
  Communicator(std::string domain, int rank, int size, std::string who)
      : domain_(std::move(domain)), rank_(rank), size_(size), who_(std::move(who)) {}

  void round(const View& mine, const std::function<void(const std::vector<View>&)>& work) {
    const std::lock_guard lock(mutex_);
    if (sockets_.empty()) open();
    const size_t bytes = static_cast<size_t>(mine.count()) * size_of(mine.dtype);
    std::vector<std::byte> all(bytes * static_cast<size_t>(size_));
    if (rank_ == 0) {
      gather(mine, bytes, all);
    } else {
      exchange(mine, bytes, all);
    }
    std::vector<View> views;
    for (size_t r = 0; r < sockets_.size(); ++r) {
      views.push_back({all.data() + r * bytes, mine.dtype, mine.format, mine.dims});
    }
    work(views);
  }

 private:
  void open() {
    sockets_.resize(static_cast<size_t>(size_));
    const auto [address, length] = address_of(domain_, size_);
    const auto* place = reinterpret_cast<const sockaddr*>(&address);
    const Clock::time_point deadline = Clock::now() + rendezvous_timeout();
    if (rank_ != 0) return connect(place, length, deadline);
    const Socket listener(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
    if (::bind(listener.number(), place, length) != 0 || ::listen(listener.number(), size_) != 0) {
      throw std::runtime_error(who_ + " cannot listen: " + std::strerror(errno));
    }
    for (int come = 1; come < size_;) come += accept(listener, deadline);
  }

  // Returns 1 if another rank connected, 0 if it was somebody else.
  int accept(const Socket& listener, Clock::time_point deadline) {
    const auto rest = std::chrono::duration_cast<std::chrono::milliseconds>(deadline - Clock::now()).count();
    pollfd waiting{listener.number(), POLLIN, 0};
    if (rest <= 0 || (::poll(&waiting, 1, static_cast<int>(rest)) == 0)) fail(EAGAIN, "the other ranks");
    Socket peer(::accept4(listener.number(), nullptr, nullptr, SOCK_CLOEXEC));
    if (peer.number() < 0 || !peer.is_own_user()) return 0;
    peer.limit(rendezvous_timeout());
    int32_t rank = 0;
    if (peer.receive(&rank, sizeof rank) != 0 || rank < 1 || rank >= size_) return 0;
    if (sockets_[static_cast<size_t>(rank)].number() >= 0) throw std::runtime_error(name(rank) + " is there twice");
    sockets_[static_cast<size_t>(rank)] = std::move(peer);
    return 1;
  }

  void connect(const sockaddr* place, socklen_t length, Clock::time_point deadline) {
    Socket& first = sockets_[0];
    first = Socket(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
    while (::connect(first.number(), place, length) != 0) {  // rank 0 may not listen yet
      if (Clock::now() > deadline) fail(EAGAIN, name(0));
      std::this_thread::sleep_for(std::chrono::milliseconds(2));
    }
    if (!first.is_own_user()) throw std::runtime_error(who_ + " finds the process of another user as rank 0");
    first.limit(rendezvous_timeout());
    const int32_t rank = rank_;
    if (!first.send(&rank, sizeof rank)) fail(EPIPE, name(0));
  }

  // Rank 0 reads what all bring, and sends everything to all.
  void gather(const View& mine, size_t bytes, std::vector<std::byte>& all) {
    const Header own = header_of(mine);
    std::string failure;
    if (bytes > 0) std::memcpy(all.data(), mine.data, bytes);
    for (int r = 1; r < size_ && failure.empty(); ++r) {
      const Socket& peer = sockets_[static_cast<size_t>(r)];
      Header header;
      if (const int error = peer.receive(&header, sizeof header)) fail(error, name(r));
      if (!(header == own)) failure = name(r) + " brings another shape or type than rank 0";
      if (!failure.empty()) break;
      if (const int error = peer.receive(all.data() + static_cast<size_t>(r) * bytes, bytes)) fail(error, name(r));
    }
    const uint64_t length = failure.size();
    for (int r = 1; r < size_; ++r) {
      const Socket& peer = sockets_[static_cast<size_t>(r)];
      const bool told = peer.send(&length, sizeof length) && peer.send(failure.data(), failure.size());
      if (failure.empty() && !(told && peer.send(all.data(), all.size()))) fail(EPIPE, name(r));
    }
    if (!failure.empty()) throw std::runtime_error(failure);
  }

  void exchange(const View& mine, size_t bytes, std::vector<std::byte>& all) {
    const Socket& first = sockets_[0];
    const Header header = header_of(mine);
    // If rank 0 refuses what it reads, it says so and ends; what could not be sent then does not matter.
    const bool sent = first.send(&header, sizeof header) && first.send(mine.data, bytes);
    uint64_t length = 0;
    if (const int error = first.receive(&length, sizeof length)) fail(error, name(0));
    std::string failure(length, ' ');
    if (const int error = first.receive(failure.data(), length)) fail(error, name(0));
    if (!failure.empty()) throw std::runtime_error(failure);
    if (!sent) fail(EPIPE, name(0));
    if (const int error = first.receive(all.data(), all.size())) fail(error, name(0));
  }

  std::string name(int rank) const { return "rank " + std::to_string(rank) + " of " + std::to_string(size_); }
  [[noreturn]] void fail(int error, const std::string& other) const {
    throw std::runtime_error(who_ + (error == EAGAIN ? " waited in vain for " + other : ": " + other + " has ended"));
  }

  std::string domain_;
  int rank_, size_;
  std::string who_;
  std::vector<Socket> sockets_;  // by rank: rank 0 has those of all others, the others have that of rank 0
  std::mutex mutex_;
};

struct Communicators {
  std::mutex mutex;
  std::map<std::pair<std::string, int>, std::shared_ptr<Communicator>> all;
};

Communicators& communicators() {
  static Communicators instance;
  return instance;
}

std::shared_ptr<Communicator> communicator(const std::string& domain, int rank, int size, const std::string& who) {
  const std::lock_guard lock(communicators().mutex);
  std::shared_ptr<Communicator>& found = communicators().all[{domain, size}];
  if (!found) found = std::make_shared<Communicator>(domain, rank, size, who);
  return found;
}

}  // namespace

void meet_processes(const std::string& domain, int rank, int size, const View& mine,
                    const std::function<void(const std::vector<View>&)>& work) {
  const std::string who = "rank " + std::to_string(rank) + " of " + std::to_string(size) + " in '" + domain + "'";
  try {
    communicator(domain, rank, size, who)->round(mine, work);
  } catch (...) {
    // By closed sockets the other ranks learn of it, too.
    const std::lock_guard lock(communicators().mutex);
    communicators().all.erase({domain, size});
    throw;
  }
}

}  // namespace atb::sim
