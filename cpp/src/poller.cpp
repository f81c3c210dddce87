#include "microrisk/poller.hpp"

#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <stdexcept>
#include <string>
#include <system_error>

namespace microrisk {

namespace {

constexpr int RECEIVE_BUFFER = 8 << 20;
constexpr std::size_t CONTROL = CMSG_SPACE(sizeof(timespec)) + CMSG_SPACE(sizeof(std::uint32_t));

std::int64_t read_clock(clockid_t id) noexcept {
  timespec t;
  clock_gettime(id, &t);
  return t.tv_sec * NS_PER_S + t.tv_nsec;
}

[[noreturn]] void fail(const char* what) {
  throw std::system_error(errno, std::generic_category(), what);
}

void set(int fd, int name, int value, const char* what) {
  if (setsockopt(fd, SOL_SOCKET, name, &value, sizeof(value)) != 0) fail(what);
}

// Messages of one recvmmsg call, reused.
struct Scratch {
  std::array<mmsghdr, Poller::BATCH> headers{};
  std::array<iovec, Poller::BATCH> vectors{};
  alignas(cmsghdr) std::array<std::array<char, CONTROL>, Poller::BATCH> control{};
};

Scratch& scratch() {
  thread_local Scratch s;
  return s;
}

}  // namespace

// ---- clock ---------------------------------------------------------------------------------------------------------

namespace {

// Wall clock minus monotonic clock. Both are read again while this thread was away between the readings: that would
// look like a step.
std::int64_t wall_minus_monotonic() noexcept {
  constexpr std::int64_t NEAR_NS = 20'000;
  std::int64_t best = INT64_MAX, out = 0;
  for (int tries = 0; tries < 10 && best > NEAR_NS; ++tries) {
    const std::int64_t before = read_clock(CLOCK_MONOTONIC), wall = read_clock(CLOCK_REALTIME);
    const std::int64_t away = read_clock(CLOCK_MONOTONIC) - before;
    if (away < best) best = away, out = wall - before - away / 2;
  }
  return out;
}

}  // namespace

SteadyClock::SteadyClock() noexcept : anchor_(wall_minus_monotonic()) {}

std::int64_t SteadyClock::now() const noexcept {
  return anchor_ + read_clock(CLOCK_MONOTONIC);
}

std::int64_t SteadyClock::offset() noexcept {
  const std::int64_t offset = anchor_ - wall_minus_monotonic();
  const std::int64_t shown = offset - shift_.load(std::memory_order_relaxed);
  const std::int64_t change = shown - last_;
  if (change > STEP_NS || change < -STEP_NS) steps_.add(1);
  last_ = shown;
  return offset;  // stamps of the kernel know nothing of the tests' shift
}

// ---- sockets -------------------------------------------------------------------------------------------------------

Poller::Poller(Journal& journal)
    : journal_(journal), epoll_(epoll_create1(EPOLL_CLOEXEC)), event_(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)) {
  if (epoll_ < 0 || event_ < 0) fail("no epoll or eventfd");
  epoll_event e{};
  e.events = EPOLLIN;
  e.data.fd = event_;
  if (epoll_ctl(epoll_, EPOLL_CTL_ADD, event_, &e) != 0) fail("epoll_ctl");
  buffers_.resize(BATCH * ROOM);
}

Poller::~Poller() {
  if (event_ >= 0) close(event_);
  if (epoll_ >= 0) close(epoll_);
}

void Poller::add(int fd, LiveFeed& feed, std::size_t line) {
  if (line >= Arbiter::MAX_LINES) throw std::invalid_argument("lines are numbered 0 to 25");
  set(fd, SO_TIMESTAMPNS, 1, "SO_TIMESTAMPNS");
  set(fd, SO_RXQ_OVFL, 1, "SO_RXQ_OVFL");
  const int room = RECEIVE_BUFFER;
  // beyond the system's limit only with the right to; what the socket then has is what there is
  if (setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, &room, sizeof(room)) != 0)
    (void)setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &room, sizeof(room));
  epoll_event e{};
  e.events = EPOLLIN;
  e.data.fd = fd;
  if (epoll_ctl(epoll_, EPOLL_CTL_ADD, fd, &e) != 0) fail("epoll_ctl");
  sockets_[fd] = Socket{&feed, line, 0, 0};
  know(feed);
}

void Poller::remove(int fd) {
  if (sockets_.erase(fd) > 0) (void)epoll_ctl(epoll_, EPOLL_CTL_DEL, fd, nullptr);
}

void Poller::wake() noexcept {
  const std::uint64_t one = 1;
  (void)!write(event_, &one, sizeof(one));
}

// ---- one poll ------------------------------------------------------------------------------------------------------

// Whether a feed that was heard has become urgent.
bool Poller::newly_urgent(int ready) noexcept {
  bool news = false;
  for (int i = 0; i < ready; ++i) {
    const auto at = sockets_.find(ready_[static_cast<std::size_t>(i)].data.fd);
    if (at == sockets_.end()) continue;
    const bool urgent = at->second.feed->urgent();
    news |= urgent && !at->second.urgent;
    at->second.urgent = urgent;
  }
  return news;
}

std::uint64_t Poller::poll(std::int64_t timeout_us, std::int64_t grace_us, bool spin) {
  counts.polls.add(1);
  std::uint64_t applied = commit();
  const std::int64_t begin = clock.now();
  const std::int64_t end = begin + std::clamp<std::int64_t>(timeout_us, 0, 60'000'000) * 1000;
  const std::int64_t grace = begin + grace_us * 1000;
  for (bool woken = false, urgent = false; !woken;) {
    const std::int64_t left_us = (std::max<std::int64_t>(end - clock.now(), 0) + 999) / 1000;
    const int n = wait(spin ? 0 : left_us);
    if (n < 0 && errno != EINTR) fail("epoll_wait");
    const std::int64_t offset = clock.offset();
    std::size_t received = 0;
    batch_bytes_ = 0;
    for (int i = 0; i < n; ++i) {
      const int fd = ready_[static_cast<std::size_t>(i)].data.fd;
      if (fd == event_) {
        std::uint64_t times;
        (void)!read(event_, &times, sizeof(times));
        counts.wakes.add(1);
        woken = true;
        continue;
      }
      const auto at = sockets_.find(fd);
      if (at != sockets_.end() && batch_bytes_ < BLOCK_BYTES) received += receive(fd, at->second, offset);
    }
    if (received > 0) applied += commit();
    const std::int64_t now = clock.now();
    if (newly_urgent(n)) break;
    for (int i = 0; i < n && !urgent; ++i) {
      const auto at = sockets_.find(ready_[static_cast<std::size_t>(i)].data.fd);
      urgent = at != sockets_.end() && at->second.urgent;
    }
    if (now >= end || (urgent && now >= grace)) break;
  }
  return applied;
}

// Sockets that are ready. By the microsecond where the kernel has it (5.11); otherwise rounded up.
int Poller::wait(std::int64_t timeout_us) noexcept {
  const int room = static_cast<int>(ready_.size());
  if (fine_ && timeout_us % 1000 != 0) {
    const timespec t{timeout_us / 1'000'000, timeout_us % 1'000'000 * 1000};
    const int n = epoll_pwait2(epoll_, ready_.data(), room, &t, nullptr);
    fine_ = n >= 0 || errno != ENOSYS;
    if (fine_) return n;
  }
  return epoll_wait(epoll_, ready_.data(), room, static_cast<int>((timeout_us + 999) / 1000));
}

// Up to BATCH datagrams of one socket into the journal's block.
std::size_t Poller::receive(int fd, Socket& socket, std::int64_t offset) {
  Scratch& s = scratch();
  for (std::size_t i = 0; i < BATCH; ++i) {
    s.vectors[i] = iovec{buffers_.data() + i * ROOM, ROOM};
    msghdr& h = s.headers[i].msg_hdr;
    h = msghdr{};
    h.msg_iov = &s.vectors[i], h.msg_iovlen = 1;
    h.msg_control = s.control[i].data(), h.msg_controllen = CONTROL;
  }
  const std::int64_t before = clock.now();
  const int n = recvmmsg(fd, s.headers.data(), BATCH, MSG_DONTWAIT, nullptr);
  if (n < 0) {
    if (errno == EAGAIN) socket.empty_ns = before;
    counts.receive_errors.add(errno != EAGAIN && errno != EINTR);
    return 0;
  }
  for (std::size_t i = 0; i < static_cast<std::size_t>(n); ++i) take(socket, i, offset);
  if (static_cast<std::size_t>(n) < BATCH) socket.empty_ns = before;
  return static_cast<std::size_t>(n);
}

void Poller::take(Socket& socket, std::size_t i, std::int64_t offset) {
  mmsghdr& m = scratch().headers[i];
  std::int64_t stamp = 0;
  for (cmsghdr* c = CMSG_FIRSTHDR(&m.msg_hdr); c != nullptr; c = CMSG_NXTHDR(&m.msg_hdr, c)) {
    if (c->cmsg_level != SOL_SOCKET) continue;
    if (c->cmsg_type == SCM_TIMESTAMPNS) {
      timespec t;
      std::memcpy(&t, CMSG_DATA(c), sizeof(t));
      stamp = t.tv_sec * NS_PER_S + t.tv_nsec;
    } else if (c->cmsg_type == SO_RXQ_OVFL) {
      std::uint32_t drops;
      std::memcpy(&drops, CMSG_DATA(c), sizeof(drops));
      counts.kernel_drops.add(drops - socket.drops);
      socket.drops = drops;
    }
  }
  const std::int64_t now = clock.now();
  // a stamp from before a step of the wall clock is off by the step
  const std::int64_t received = stamp == 0 ? now : std::clamp(stamp + offset, std::min(socket.empty_ns, now), now);
  const bool cut = (m.msg_hdr.msg_flags & MSG_TRUNC) != 0;
  counts.truncated.add(cut);
  counts.datagrams.add(1);
  batch_bytes_ += m.msg_len;
  LiveFeed& feed = *socket.feed;
  feed.heard(received);
  feed.arbiter.take(socket.line, buffers_.data() + i * ROOM, m.msg_len, received, journal_, cut);
}

std::uint64_t Poller::commit() {
  if (journal_.pending_records() == 0) return 0;
  BatchTimes batch;
  batch.taken = clock.now();
  journal_.flush();
  batch.journalled = clock.now();
  counts.batches.add(1);
  std::uint64_t applied = 0;
  Records records(journal_.flushed());
  for (Record r; records.next(r);) {
    const auto at = feeds_.find(r.feed);
    if (at == feeds_.end()) continue;
    const std::uint64_t n = at->second->apply(r);
    applied += n;
    if (r.kind == journal::Kind::RUN && n > 0) at->second->stages.add(batch, r.recv_ns, clock.now(), n);
  }
  return applied;
}

}  // namespace microrisk
