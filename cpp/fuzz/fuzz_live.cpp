// libFuzzer target: datagrams of several lines into records, and the records into books.
//
// A script sends packets of few numbers on three lines, in any order, of several sessions, damaged or raw, and does
// what recovery does: answers, giving up, beginning sessions, joining images. The records must be those of the naive
// arbiter. Applied one by one, again from the journal's file, and in two halves with the state saved between, they must
// leave the same engine.
#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <span>

#include "microrisk/live.hpp"
#include "naive_arbiter.hpp"

namespace {

using namespace fuzz;
using microrisk::Engine;
using microrisk::Journal;
using microrisk::LiveFeed;
using microrisk::Record;
using microrisk::Records;

constexpr std::uint16_t FEED = 3;
constexpr std::size_t MAX_STEPS = 400;
constexpr std::uint64_t FAR[] = {std::uint64_t{1} << 31, (std::uint64_t{1} << 32) + 9, std::uint64_t{1} << 63,
                                 ~std::uint64_t{0}, ~std::uint64_t{0} - 3};

void put(Bytes& out, std::uint64_t value, std::size_t bytes) {
  for (std::size_t i = bytes; i-- > 0;) out.push_back(static_cast<std::uint8_t>(value >> (8 * i)));
}

Bytes name_of(std::uint8_t which) {
  Bytes out(10, ' ');
  out[0] = static_cast<std::uint8_t>('A' + which % 4);
  return out;
}

// Message n of few orders: adds, removals, executions, names, states, something unknown, or nothing at all.
Bytes block(std::uint64_t n) {
  static constexpr char types[] = {'A', 'A', 'D', 'E', 'R', 'A', 'H', 'S', 'z', 'A', 'U', 'X'};
  const auto kind = static_cast<std::size_t>(n % 13);
  Bytes out;
  if (kind == 12) {
    put(out, 0, 2);
    return out;
  }
  const char type = types[kind];
  const std::size_t known = microrisk::itch::length_of(static_cast<unsigned char>(type));
  const std::size_t length = known == 0 ? 5 : known;
  put(out, length, 2);
  out.push_back(static_cast<std::uint8_t>(type));
  for (std::size_t i = 1; i < length; ++i) out.push_back(static_cast<std::uint8_t>((n / 13 + i) % 5 == 0 ? n % 3 : 0));
  if (length >= 36 && type == 'A') {
    out[2 + 19] = n % 2 == 0 ? 'B' : 'S';
    out[2 + 18] = static_cast<std::uint8_t>(n % 40);
    out[2 + 23] = 9, out[2 + 35] = static_cast<std::uint8_t>(n % 7);
  } else if (length >= 19) {
    out[2 + 18] = static_cast<std::uint8_t>((n - 2) % 40);
  }
  return out;
}

// One engine fed by records.
struct Books {
  Books() : feed(engine, FEED, 0, "", 0, 8) {}
  void apply(const Record& r) {
    (void)feed.apply(r);
    if (r.kind == microrisk::journal::Kind::RUN) feed.heard(r.recv_ns);
  }
  microrisk::Bytes state() const {
    microrisk::Bytes out = engine.save();
    const microrisk::Bytes of_feed = feed.save();
    out.insert(out.end(), of_feed.begin(), of_feed.end());
    return out;
  }
  Engine engine{false, 64, 8};
  LiveFeed feed;
};

class Run {
 public:
  explicit Run(Input& in)
      : in_(in),
        fd_(memfd_create("journal", MFD_CLOEXEC)),
        journal_(fd_),
        setup_(in.byte()),
        window_(pick({std::size_t{0}, std::size_t{3}, std::size_t{20}, std::size_t{65536}}, setup_)),
        first_((setup_ & 4) != 0 ? 1 : 0),
        feed_(books_.engine, FEED, 0, (setup_ & 8) != 0 ? std::string("A") : std::string(), first_, window_),
        naive_((setup_ & 8) != 0 ? name_of(0) : Bytes{}, first_, window_) {}
  ~Run() { close(fd_); }
  Run(const Run&) = delete;
  Run& operator=(const Run&) = delete;

  void go() {
    for (std::size_t i = 0; i < MAX_STEPS && !in_.empty(); ++i) {
      now_ += in_.byte();
      step(in_.byte());
      compare();
    }
    if ((setup_ & 0x30) == 0) check_books();  // of one in four: engines are large
  }

 private:
  void step(std::uint8_t op) {
    switch (op & 15U) {
      case 9: return stream();
      case 10: return give_up();
      case 11: return begin_session(op);
      case 12: return join(op);
      case 13: return refuse();
      case 14: return send(in_.take(in_.byte() % 64), op);  // raw
      case 15: return send(idle((op & 16) != 0 ? 0xFFFF : 0), op);
      default: return send(packet(), op);
    }
  }

  // Near what is expected, far away, or very far.
  std::uint64_t number() {
    const std::uint8_t v = in_.byte();
    if (v >= 250) return FAR[v - 250 < 5 ? v - 250 : 4];
    return naive_.next + v % 32 - std::min<std::uint64_t>(naive_.next, 12);
  }
  Bytes head(std::uint64_t seq, std::uint64_t count) {
    const std::uint8_t v = in_.byte();
    Bytes out = v < 200 ? current_ : name_of(v);
    put(out, seq, 8);
    put(out, count, 2);
    return out;
  }
  Bytes packet() {
    const std::uint64_t seq = number(), count = in_.byte() % 10;
    Bytes out = head(seq, count);
    for (std::uint64_t i = 0; i < count; ++i) {
      const Bytes b = block(seq + i);
      out.insert(out.end(), b.begin(), b.end());
    }
    const std::uint8_t damage = in_.byte();
    if (damage >= 240 && !out.empty()) out.resize(out.size() - std::min<std::size_t>(out.size(), damage - 239U));
    if (damage >= 230 && damage < 240) out.push_back(damage);
    if (damage >= 220 && damage < 230 && out.size() > 19) out[19] ^= damage;
    return out;
  }
  Bytes idle(std::uint64_t count) { return head(number(), count); }

  void send(const Bytes& datagram, std::uint8_t op) {
    const Block exact(datagram.data(), datagram.size());
    feed_.arbiter.take(op >> 4 & 3, exact.data(), exact.size(), now_, journal_);
    naive_.take(datagram, now_);
  }
  void stream() {
    const std::uint64_t seq = number(), count = in_.byte() % 8;
    Bytes out;
    for (std::uint64_t i = 0; i < count; ++i) {
      const Bytes b = block(seq + i);
      out.insert(out.end(), b.begin(), b.end());
    }
    if (in_.byte() > 240) out.push_back(1);
    const Block exact(out.data(), out.size());
    feed_.arbiter.take_stream(seq, exact.data(), exact.size(), now_, journal_);
    naive_.take_stream(seq, out, now_);
  }
  void give_up() {
    const std::uint64_t upto = number();
    (void)feed_.arbiter.give_up(upto, now_, journal_);
    naive_.give_up(upto, now_);
  }
  void begin_session(std::uint8_t op) {
    Bytes name = naive_.waiting_name();
    if (name.empty() || op >= 224) name = name_of(in_.byte());
    const std::uint64_t first = 1 + in_.byte() % 4;
    feed_.arbiter.begin_session(std::string(name.begin(), name.end()), now_, first, now_, journal_);
    naive_.begin_session(name, now_, first, now_);
    current_ = name;
  }
  // With a small window what is held for a join has to make room by its own rules, which the naive one does not have.
  void join(std::uint8_t op) {
    if (window_ < 100) return;
    if ((op & 16) != 0) {
      feed_.arbiter.begin_join();
      naive_.joining = true;
      return;
    }
    const std::uint64_t seq = std::max<std::uint64_t>(number(), 1);
    if (seq > naive_.next + 1000) return;
    feed_.arbiter.joined(seq, now_, journal_);
    naive_.joined(seq, now_);
  }
  void refuse() {
    if (in_.byte() % 4 != 0 || naive_.waiting.empty()) return;
    const Bytes name = naive_.waiting_name();
    feed_.arbiter.refuse_session();
    naive_.refuse(name);
  }

  void compare() {
    (void)journal_.flush();
    Records records(journal_.flushed());
    std::size_t n = 0;
    for (Record r; records.next(r); ++n) {
      if (n >= naive_.records.size()) fail("record %zu of kind %d is not one of the naive arbiter", n, int(r.kind));
      const NaiveRecord& other = naive_.records[n];
      equal("feed", r.feed, FEED);
      equal("kind", static_cast<int>(r.kind), other.kind);
      equal("time", r.recv_ns, other.at);
      equal("number", r.seq, other.seq);
      if (!std::equal(r.body, r.body + r.size, other.body.begin(), other.body.end())) fail("body of record %zu", n);
      books_.apply(r);
    }
    equal("records", n, naive_.records.size());
    naive_.records.clear();
    equal("expected", feed_.arbiter.expected(), naive_.next);
    equal("ended", feed_.arbiter.ended(), naive_.ended);
    equal("held", feed_.arbiter.counts.held.get(), naive_.held.size());
    equal("waiting", feed_.arbiter.counts.waiting.get(), naive_.waiting.size());
    compare_holes();
  }
  void compare_holes() {
    const auto holes = feed_.arbiter.holes();
    equal("holes", holes.size(), naive_.holes.size());
    std::uint64_t missing = 0;
    for (std::size_t i = 0; i < holes.size(); ++i) {
      equal("first of a hole", holes[i].first, naive_.holes[i].first);
      equal("end of a hole", holes[i].end, naive_.holes[i].end);
      equal("time of a hole", holes[i].since_ns, naive_.holes[i].since);
      missing += holes[i].end - holes[i].first;
    }
    equal("missing", feed_.arbiter.counts.missing.get(), missing);
  }

  // Read again from the file; and half of it, saved, loaded into new books, and the other half.
  void check_books() {
    Bytes data(static_cast<std::size_t>(journal_.written_bytes()));
    if (pread(fd_, data.data(), data.size(), 0) != static_cast<ssize_t>(data.size())) fail("the journal is short");
    std::vector<Record> records;
    for (std::size_t at = 0; at < data.size();) {
      const std::size_t size = data[at + 4] | data[at + 5] << 8 | data[at + 6] << 16;
      Records of({data.data() + at + 24, size});
      for (Record r; of.next(r);) records.push_back(r);
      at += 24 + size;
    }
    Books again, early, late;
    for (const Record& r : records) again.apply(r);
    for (std::size_t i = 0; i < records.size() / 2; ++i) early.apply(records[i]);
    const microrisk::Bytes engine = early.engine.save(), feed = early.feed.save();
    late.engine.load(engine.data(), engine.size());
    late.feed.load(feed.data(), feed.size());
    for (std::size_t i = records.size() / 2; i < records.size(); ++i) late.apply(records[i]);
    if (again.state() != books_.state()) fail("the journal gives other books");
    if (late.state() != books_.state()) fail("a state that was saved goes on differently");
    for (const Books* b : {&again, &late}) {
      equal("where the books stand", b->feed.arbiter.expected(), books_.feed.arbiter.expected());
      equal("whether they ended", b->feed.arbiter.ended(), books_.feed.arbiter.ended());
    }
  }

  Input& in_;
  int fd_;
  Journal journal_;
  std::uint8_t setup_;
  std::size_t window_;
  std::uint64_t first_;
  Books books_;
  LiveFeed feed_;
  NaiveArbiter naive_;
  Bytes current_ = name_of(0);
  std::int64_t now_ = 1;
};

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  Input in(data, size);
  Run(in).go();
  return 0;
}
