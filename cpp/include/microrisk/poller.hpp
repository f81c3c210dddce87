// UDP sockets of many feeds on one thread: receive a batch, arbitrate, write the journal's block, apply its records.
//
// Receive times are the kernel's (SO_TIMESTAMPNS), carried over to a steady clock: wall clock at construction plus
// monotonic time since, so that a step of the wall clock moves nothing. Steps are counted.
#pragma once

#include <sys/epoll.h>

#include <array>
#include <atomic>
#include <cstdint>
#include <unordered_map>
#include <vector>

#include "microrisk/journal.hpp"
#include "microrisk/live.hpp"

struct epoll_event;

namespace microrisk {

class SteadyClock {
 public:
  SteadyClock() noexcept;
  std::int64_t now() const noexcept;
  // Compares with the wall clock; what to add to a time of the wall clock to have it on this one.
  std::int64_t offset() noexcept;
  // Tests: as if the wall clock had been stepped by `ns`; from any thread.
  void shift(std::int64_t ns) noexcept { shift_.fetch_add(ns, std::memory_order_relaxed); }
  std::uint64_t steps() const noexcept { return steps_.get(); }

 private:
  static constexpr std::int64_t STEP_NS = 2'000'000;
  std::int64_t anchor_;  // wall minus monotonic at construction
  std::int64_t last_ = 0;
  std::atomic<std::int64_t> shift_{0};
  Tally steps_;
};

struct PollerCounts {
  Tally polls, wakes, datagrams, batches, kernel_drops, truncated, receive_errors;
};

class Poller {
 public:
  static constexpr std::size_t BATCH = 64, ROOM = 9216;
  static constexpr std::size_t BLOCK_BYTES = std::size_t{4} << 20;  // received in one batch at most, about

  explicit Poller(Journal& journal);
  Poller(const Poller&) = delete;
  Poller& operator=(const Poller&) = delete;
  ~Poller();

  // `fd` stays the caller's and must be non-blocking; it is set up for time stamps, drop counts and a large buffer.
  void add(int fd, LiveFeed& feed, std::size_t line);
  void remove(int fd);
  // A feed whose records commit() applies although it has no socket.
  void know(LiveFeed& feed) { feeds_[feed.number()] = &feed; }
  // From any thread: the poll that waits, or the next one, returns.
  void wake() noexcept;

  // Works for `timeout_us`, or until woken, or until a feed that was heard is urgent (but for `grace_us` at least, if
  // it was urgent before); messages applied. `spin`: never sleeps. std::system_error when the journal cannot be
  // written: the block stays pending and is the first thing next time.
  std::uint64_t poll(std::int64_t timeout_us, std::int64_t grace_us, bool spin);
  // Writes the pending block and applies its records.
  std::uint64_t commit();

  SteadyClock clock;
  PollerCounts counts;

 private:
  struct Socket {
    LiveFeed* feed;
    std::size_t line;
    bool urgent = false;        // when it was looked at last
    std::uint32_t drops = 0;    // as the kernel said last
    std::int64_t empty_ns = 0;  // it was empty then: what is in it came later
  };

  std::size_t receive(int fd, Socket& socket, std::int64_t offset);
  void take(Socket& socket, std::size_t i, std::int64_t offset);
  int wait(std::int64_t timeout_us) noexcept;
  bool newly_urgent(int ready) noexcept;

  Journal& journal_;
  int epoll_, event_;
  std::unordered_map<int, Socket> sockets_;
  std::unordered_map<std::uint16_t, LiveFeed*> feeds_;
  std::vector<std::uint8_t> buffers_;
  std::array<epoll_event, 128> ready_;
  std::size_t batch_bytes_ = 0;
  bool fine_ = true;  // the kernel waits by the nanosecond
};

}  // namespace microrisk
