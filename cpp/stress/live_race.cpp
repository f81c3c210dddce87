// The live path while everybody is at it, for ThreadSanitizer: one thread polls and applies, one sends on two lines
// that lose packets, others read every number that may be read, wake the poller, and step the wall clock.
//
//   live_race JOURNAL [PACKETS]
//
// At the end the numbers must add up, and reading the journal again must give the same books.
#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <thread>
#include <vector>

#include "microrisk/poller.hpp"

namespace {

using namespace microrisk;

constexpr std::uint64_t PER_PACKET = 20, AHEAD = 100;
constexpr std::uint64_t LOST_A = 7, LOST_B = 11;  // each line loses every so manieth packet
constexpr char NAME[] = "SESSION001";
constexpr std::size_t ADD_BYTES = 36;

[[noreturn]] void fail(const char* what) {
  std::fprintf(stderr, "FAILED: %s\n", what);
  std::exit(1);
}
void require(bool good, const char* what) {
  if (!good) fail(what);
}

void put(std::vector<std::uint8_t>& out, std::uint64_t value, std::size_t bytes) {
  for (std::size_t i = bytes; i-- > 0;) out.push_back(static_cast<std::uint8_t>(value >> (8 * i)));
}

// Message n adds order n, or removes the order 50 before it.
void put_message(std::vector<std::uint8_t>& out, std::uint64_t n) {
  const bool removes = n % 3 == 0 && n > 50;
  put(out, removes ? 19 : ADD_BYTES, 2);
  out.push_back(removes ? 'D' : 'A');
  put(out, n % 5 + 1, 2);
  put(out, 0, 2);
  put(out, n, 6);
  put(out, removes ? n - 50 : n, 8);
  if (removes) return;
  out.push_back(n % 2 == 0 ? 'B' : 'S');
  put(out, 100, 4);
  for (const char c : std::string("TEST    ")) out.push_back(static_cast<std::uint8_t>(c));
  put(out, n % 2 == 0 ? 1000 - n % 40 : 1001 + n % 40, 4);
}

std::vector<std::uint8_t> packet(std::uint64_t first, std::uint64_t count) {
  std::vector<std::uint8_t> out(NAME, NAME + 10);
  put(out, first, 8);
  put(out, count, 2);
  for (std::uint64_t i = 0; i < count; ++i) put_message(out, first + i);
  return out;
}

struct Line {
  Line() : fd(socket(AF_INET, SOCK_DGRAM | SOCK_NONBLOCK, 0)) {
    at.sin_family = AF_INET;
    at.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t size = sizeof(at);
    require(fd >= 0 && bind(fd, reinterpret_cast<sockaddr*>(&at), size) == 0, "bind");
    require(getsockname(fd, reinterpret_cast<sockaddr*>(&at), &size) == 0, "getsockname");
  }
  ~Line() { close(fd); }
  int fd;
  sockaddr_in at{};
};

struct Stage {
  Stage(int journal_fd) : journal(journal_fd), poller(journal) {
    for (std::size_t i = 0; i < lines.size(); ++i) poller.add(lines[i].fd, feed, i);
  }
  Engine engine{true, 1024, 16};
  LiveFeed feed{engine, 0, 0, "", 1, 4096};
  Journal journal;
  std::array<Line, 2> lines;
  Poller poller;
  std::atomic<bool> sent{false}, done{false};
  std::atomic<std::uint64_t> datagrams{0};
};

// Never further ahead of the poller than the sockets' buffers reach.
void send(Stage& s, std::uint64_t packets) {
  const int out = socket(AF_INET, SOCK_DGRAM, 0);
  std::uint64_t n = 0;
  const auto to = [&](std::size_t line, const std::vector<std::uint8_t>& bytes) {
    while (n > s.poller.counts.datagrams.get() + AHEAD) std::this_thread::yield();
    const Line& l = s.lines[line];
    const ssize_t done =
        sendto(out, bytes.data(), bytes.size(), 0, reinterpret_cast<const sockaddr*>(&l.at), sizeof(l.at));
    require(done == static_cast<ssize_t>(bytes.size()), "sendto");
    s.datagrams.store(++n);
  };
  for (std::uint64_t k = 0; k < packets; ++k) {
    const auto bytes = packet(1 + k * PER_PACKET, PER_PACKET);
    if (k % LOST_A != 0) to(0, bytes);
    if (k % LOST_B != 0) to(1, bytes);
  }
  to(0, packet(1 + packets * PER_PACKET, 0));
  close(out);
  s.sent.store(true);
}

// Everything that another thread may ask while the poller runs.
void read(const Stage& s) {
  std::uint64_t before = 0, sum = 0;
  while (!s.done.load()) {
    const ArbiterCounts& c = s.feed.arbiter.counts;
    for (const Tally* t :
         {&c.taken,      &c.duplicates, &c.late,        &c.recovered, &c.reordered, &c.malformed, &c.requests,
          &c.heartbeats, &c.ends,       &c.unsequenced, &c.trailing,  &c.foreign,   &c.wild,      &c.behind,
          &c.overflow,   &c.dropped,    &c.held,        &c.held_max,  &c.waiting,   &c.missing})
      sum += t->get();
    for (const Arbiter::Line& line : s.feed.arbiter.lines()) sum += line.packets.get() + line.missing.get();
    const PollerCounts& p = s.poller.counts;
    for (const Tally* t :
         {&p.polls, &p.wakes, &p.datagrams, &p.batches, &p.kernel_drops, &p.truncated, &p.receive_errors})
      sum += t->get();
    sum += s.poller.clock.steps() + static_cast<std::uint64_t>(s.poller.clock.now());
    sum += s.journal.number() + s.journal.crc() + s.journal.written_bytes() + s.journal.pending_records();
    sum += s.feed.names_version() + static_cast<std::uint64_t>(s.feed.last_packet_ns()) + s.feed.arbiter.ended();
    const std::uint64_t now = s.feed.messages();
    require(now >= before, "the count of messages went back");
    before = now;
    std::this_thread::yield();
  }
  if (sum == 0) std::puts("nothing was counted");
}

void disturb(Stage& s) {
  for (std::int64_t k = 0; !s.done.load(); ++k) {
    s.poller.wake();
    if (k % 16 == 0) s.poller.clock.shift(k % 32 == 0 ? NS_PER_S : -NS_PER_S);
    std::this_thread::sleep_for(std::chrono::microseconds(200));
  }
}

void poll(Stage& s) {
  for (std::uint64_t k = 0; !s.sent.load() || s.poller.counts.datagrams.get() < s.datagrams.load(); ++k) {
    (void)s.poller.poll(500, 300, k % 4 == 0);
    if (k % 8 == 0 && s.feed.arbiter.holes().size() > 2)
      (void)s.feed.arbiter.give_up(s.feed.arbiter.expected() + PER_PACKET, s.poller.clock.now(), s.journal);
  }
  (void)s.feed.arbiter.give_up(UINT64_MAX, s.poller.clock.now(), s.journal);
  (void)s.poller.commit();
  s.done.store(true);
}

// The books of the journal's file.
Bytes read_again(const char* path) {
  std::vector<std::uint8_t> data;
  std::FILE* file = std::fopen(path, "rb");
  require(file != nullptr, "the journal cannot be read");
  std::array<std::uint8_t, 65536> piece;
  for (std::size_t n; (n = std::fread(piece.data(), 1, piece.size(), file)) > 0;)
    data.insert(data.end(), piece.begin(), piece.begin() + static_cast<std::ptrdiff_t>(n));
  std::fclose(file);
  Engine engine(true, 1024, 16);
  LiveFeed feed(engine, 0, 0, "", 1, 4096);
  for (std::size_t at = 0; at < data.size();) {
    std::uint32_t size;
    std::memcpy(&size, data.data() + at + 4, 4);
    Records records({data.data() + at + journal::BLOCK_HEADER_BYTES, size});
    for (Record r; records.next(r);) (void)feed.apply(r);
    at += journal::BLOCK_HEADER_BYTES + size;
  }
  return engine.save();
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 2) fail("usage: live_race JOURNAL [PACKETS]");
  const std::uint64_t packets = argc > 2 ? std::strtoull(argv[2], nullptr, 10) : 5000;
  const int fd = open(argv[1], O_CREAT | O_TRUNC | O_RDWR, 0600);
  require(fd >= 0, "the journal cannot be made");
  Stage s(fd);
  {
    std::vector<std::thread> threads;
    threads.emplace_back([&] { poll(s); });
    threads.emplace_back([&] { send(s, packets); });
    threads.emplace_back([&] { read(s); });
    threads.emplace_back([&] { disturb(s); });
    for (std::thread& t : threads) t.join();
  }
  close(fd);
  const std::uint64_t lost = (packets + LOST_A * LOST_B - 1) / (LOST_A * LOST_B) * PER_PACKET;
  const std::uint64_t all = packets * PER_PACKET, late = s.feed.arbiter.counts.late.get();
  require(s.poller.counts.kernel_drops.get() == 0, "the kernel dropped packets");
  // a hole may be given up while the other line still has it
  require(s.feed.messages() + lost + late >= all && s.feed.messages() + lost <= all, "messages do not add up");
  require(s.feed.arbiter.expected() == all + 1, "the end was not reached");
  require(s.engine.save() == read_again(argv[1]), "the journal gives other books");
  std::printf("%llu messages, %llu late, %llu wakes, %llu steps\n", static_cast<unsigned long long>(s.feed.messages()),
              static_cast<unsigned long long>(late), static_cast<unsigned long long>(s.poller.counts.wakes.get()),
              static_cast<unsigned long long>(s.poller.clock.steps()));
  return 0;
}
