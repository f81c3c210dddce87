// libFuzzer target: the way of a message from the wire into a book.
//
// A script writes an ITCH stream: few orders, referred to soon after they came, reused, replaced, unknown, and damaged
// messages in between. The stream goes through Engine::run_itch in pieces that end at any byte, a few messages a call,
// each piece a block of its own. It must do what the naive decoder and the naive book do message by message, and leave
// the books that decoding first and run_events afterwards leave.
#include "compare.hpp"
#include "naive_itch.hpp"

namespace {

using namespace fuzz;
using microrisk::ItchDecoder;

constexpr std::size_t MAX_MESSAGES = 3000;

// ---- the stream ----------------------------------------------------------------------------------------------------

class Writer {
 public:
  explicit Writer(Input& in) : in_(in) {
    id_scheme_ = in_.byte();
    grid_ = pick({1U, 100U, 10'000U, 1U << 20}, in_.byte());
  }

  Bytes write() {
    while (!in_.empty() && written_ < MAX_MESSAGES) step();
    return std::move(wire_);
  }

 private:
  struct Known {
    std::uint64_t id;
    std::uint32_t locate;
  };

  void step() {
    const std::uint8_t op = in_.byte();
    switch (op & 15U) {
      case 11: return burst(op >> 4);
      case 12: return raw();
      case 13: return quiet(op >> 4);
      case 14: damage_ = in_.byte(); return;
      case 15: return withdraw(op >> 4);
      default: return message(op);
    }
  }

  void message(std::uint8_t op) {
    static constexpr char types[] = {'A', 'A', 'F', 'E', 'C', 'X', 'D', 'U', 'P', 'Q', 'H'};
    static constexpr std::uint32_t near[] = {1, 2, 1, 3};
    const char type = types[op & 15U];
    const bool adds = type == 'A' || type == 'F';
    const std::uint8_t which = in_.byte();
    std::uint32_t locate = pick(near, op >> 4);
    const std::uint64_t ref = adds ? new_ref(which, locate) : old_ref(which, locate, (op & 64) != 0);
    if ((op & 128) != 0) locate = pick({0U, 65535U, 4096U, 2U}, which);
    head(type, locate);
    body(type, ref, locate);
    close();
  }

  void body(char type, std::uint64_t ref, std::uint32_t locate) {
    switch (type) {
      case 'P':
      case 'F':
      case 'A': return order(type, ref);
      case 'U': {
        put(8, ref);
        put(8, new_ref(in_.byte(), locate));
        const std::uint32_t shares = size();
        return put(4, shares), put(4, price(0));
      }
      case 'E': return put(8, ref), put(4, size()), put(8, ++match_);
      case 'C': {
        put(8, ref), put(4, size()), put(8, ++match_);
        const std::uint8_t v = in_.byte();
        return put(1, (v & 1) != 0 ? 'N' : 'Y'), put(4, grid_ * (1000U + v % 8U));
      }
      case 'X': return put(8, ref), put(4, size());
      case 'D': return put(8, ref);
      case 'Q': return put(8, size()), text(8), put(4, price(0)), put(8, ++match_), put(1, 'O');
      default: return text(8), put(1, static_cast<std::uint64_t>("HPQTx"[ref % 5])), put(1, ' '), text(4);
    }
  }

  void order(char type, std::uint64_t ref) {
    const std::uint8_t v = in_.byte();
    const bool ask = (v & 1) != 0;
    put(8, ref);
    put(1, v == 0xFF ? 'b' : ask ? 'S' : 'B');
    put(4, size());
    text(8);
    put(4, v >= 0xF8 ? pick({0U, UINT32_MAX, 1U << 31, 1U}, v) : price(ask ? 1 : -1));
    if (type == 'F') text(4);
    if (type == 'P') put(8, ++match_);
  }

  // ---- fields ------------------------------------------------------------------------------------------------------

  // Bids mostly below 1000, asks above; now and then a price that locks or crosses.
  std::uint32_t price(int away) {
    const std::uint8_t v = in_.byte();
    if (away == 0) away = (v & 64) != 0 ? 1 : -1;
    const int step = (v & 7) == 7 ? -(v >> 5) : 1 + (v >> 1);
    return grid_ * static_cast<std::uint32_t>(1000 + away * step);
  }
  std::uint32_t size() {
    const std::uint8_t v = in_.byte();
    return v >= 0xFA ? pick({0U, UINT32_MAX, 1U << 31, INT32_MAX + 0U, 0U, 1000U}, v) : v % 40U;
  }

  std::uint64_t fresh() {
    const std::uint64_t gap = id_scheme_ >> 3;
    const std::uint64_t n = next_ += 1 + gap * gap;
    switch (id_scheme_ & 7U) {
      case 0: return n;
      case 1: return n * 8;
      case 2: return n * 1024;
      case 3: return n << 20;
      case 4: return n << 32;
      case 5: return n * 0x9E3779B97F4A7C15ULL;
      case 6: return UINT64_MAX - n;
      default: return 1 + n % 12;
    }
  }
  std::uint64_t new_ref(std::uint8_t v, std::uint32_t locate) {
    const std::uint64_t id = v >= 0xD0 && !known_.empty() ? known_[known_.size() - 1 - v % known_.size()].id : fresh();
    known_.push_back(Known{id, locate});
    return id;
  }
  // An order entered a few messages ago, an old one, or one that never was; its own locate unless asked otherwise.
  std::uint64_t old_ref(std::uint8_t v, std::uint32_t& locate, bool elsewhere) {
    if (v >= 0xF0) return pick({std::uint64_t{0}, UINT64_MAX, std::uint64_t{1} << 63, std::uint64_t{1} << 32}, v);
    if (known_.empty() || v >= 0xE8) return fresh();
    const std::size_t back = v < 0xC0 ? v : (v - 0xC0U) * 37U;
    const Known& k = known_[known_.size() - 1 - back % known_.size()];
    if (!elsewhere) locate = k.locate;
    return k.id;
  }

  void put(std::size_t n, std::uint64_t value) {
    for (std::size_t i = n; i-- > 0;) now_.push_back(static_cast<std::uint8_t>(value >> 8 * i));
  }
  void text(std::size_t n) {
    for (std::size_t i = 0; i < n; ++i) now_.push_back(static_cast<std::uint8_t>("MICRORSK"[i]));
  }
  void head(char type, std::uint32_t locate) {
    time_ += written_ % 5 == 0 ? 60'000'000 : 100;
    put(1, static_cast<std::uint8_t>(type)), put(2, locate), put(2, 0), put(6, time_);
  }

  // Frames the message, damaged when that was asked for.
  void close() {
    std::size_t length = now_.size();
    const std::uint8_t how = std::exchange(damage_, std::uint8_t{0});
    switch (how & 7U) {
      case 1: now_.resize(now_.size() - 1 - how / 8 % (now_.size() - 1)), length = now_.size(); break;  // too short
      case 2: now_.push_back(how), length = now_.size(); break;                                         // too long
      case 3: now_[0] = how | 0x80U; break;                                                             // unknown type
      case 4: length = 0; break;                                             // the framing of some writers
      case 5: length ^= 1U << (how >> 3) % 16; break;                        // a wrong length field
      case 6: now_[now_.size() - 1 - how / 8 % now_.size()] ^= 0x55; break;  // a wrong byte
      case 7: length = now_.size() + 1, now_.push_back(0); break;
      default: break;
    }
    wire_.push_back(static_cast<std::uint8_t>(length >> 8));
    wire_.push_back(static_cast<std::uint8_t>(length));
    wire_.insert(wire_.end(), now_.begin(), now_.end());
    now_.clear();
    ++written_;
  }

  // ---- more than one message, or none ------------------------------------------------------------------------------

  void burst(unsigned locate) {
    const unsigned n = in_.byte(), how = in_.byte();
    for (unsigned i = 0; i < n && written_ < MAX_MESSAGES; ++i) {
      const bool ask = (how >> i % 8 & 1) != 0;
      head('A', 1 + locate % 4);
      put(8, new_ref(0, 1 + locate % 4)), put(1, ask ? 'S' : 'B'), put(4, 1 + i % 9), text(8);
      put(4, grid_ * static_cast<std::uint32_t>(1000 + (ask ? 1 : -1) * static_cast<int>(1 + i * (how >> 6) % 400)));
      close();
    }
  }
  void withdraw(unsigned how) {
    for (unsigned n = in_.byte(); n > 0 && !known_.empty() && written_ < MAX_MESSAGES; --n) {
      const std::size_t at = (how & 1) != 0 ? known_.size() - 1 : 0;
      const Known k = known_[at];
      known_.erase(known_.begin() + static_cast<std::ptrdiff_t>(at));
      head((how & 2) != 0 ? 'X' : 'D', k.locate);
      put(8, k.id);
      if ((how & 2) != 0) put(4, 9);
      close();
    }
  }
  void quiet(unsigned which) {
    const char type = "SRBINYWh"[which % 8];
    head(type, which);
    const std::size_t n = itch_length(static_cast<std::uint8_t>(type));
    while (now_.size() < n) now_.push_back(static_cast<std::uint8_t>(now_.size() == 11 ? "QMOC"[which / 2 % 4] : 'M'));
    close();
  }
  void raw() {
    const Bytes bytes = in_.take(in_.byte() % 48U);
    wire_.insert(wire_.end(), bytes.begin(), bytes.end());
  }

  Input& in_;
  Bytes wire_, now_;
  std::vector<Known> known_;
  std::uint8_t id_scheme_ = 0, damage_ = 0;
  std::uint32_t grid_ = 1;
  std::uint64_t next_ = 0, match_ = 0, time_ = 34'200'000'000'000;
  std::size_t written_ = 0;
};

// ---- the run -------------------------------------------------------------------------------------------------------

class Run {
 public:
  // `interludes`: between the calls something happens to the books that no message says.
  Run(Pair& pair, const Bytes& wire, bool loose, bool interludes)
      : pair_(pair),
        wire_(wire),
        frames_(itch_frames(wire, loose)),
        decoder_(0, loose),
        naive_(0),
        interludes_(interludes) {}

  // `pieces`: bytes that arrive at once; `calls`: messages of one call; both used in turn.
  void go(const std::array<std::size_t, 4>& pieces, const std::array<std::uint64_t, 4>& calls) {
    for (std::size_t end = 0, n = 0; end < wire_.size(); ++n) {
      end = std::min(wire_.size(), end + pieces[n % 4]);
      while (call(end, calls[call_++ % 4])) continue;
    }
    equal("messages", naive_.messages, frames_.messages.size());
    // an end mark at the end of a piece is consumed, also when a message then shows that it was a length of zero
    const bool mark = offset_ == frames_.rest + 2 && wire_[frames_.rest] == 0 && wire_[frames_.rest + 1] == 0;
    equal("consumed", mark ? frames_.rest : offset_, frames_.rest);
    equal("trailing", decoder_.trailing, frames_.trailing);
    equal("ended", decoder_.ended, frames_.ended);
    equal("malformed", decoder_.malformed, naive_.malformed);
    equal("unknown types", decoder_.unknown_type, naive_.unknown_type);
    equal("first_ts", decoder_.first_ts, naive_.first_ts);
    equal("last_ts", decoder_.last_ts, naive_.last_ts);
    pair_.finish();
  }

 private:
  // One run_itch on what has arrived and was not used; true while it goes on.
  bool call(std::size_t end, std::uint64_t most) {
    const Block block(wire_.data() + offset_, end - offset_);
    const std::uint64_t before = decoder_.messages, trailing = decoder_.trailing;
    const std::size_t used = pair_.engine.run_itch(decoder_, block.data(), block.size(), 0, most);
    if (used > block.size()) fail("run_itch went %zu bytes behind the end", used - block.size());
    offset_ += used;
    const std::uint64_t done = decoder_.messages - before;
    if (done > most) fail("run_itch took %llu messages instead of %llu", ull(done), ull(most));
    follow();
    pair_.naive.count(Integrity::trailing, decoder_.trailing - trailing, EVERY_INSTRUMENT);
    if (done > 0 && done == most) check_end();
    if (interludes_) interlude();
    pair_.compare();
    return done == most && offset_ < end;
  }

  // A level that a venue set, a part of an image, a book emptied from outside or by an event.
  void interlude() {
    Event e{};
    e.instrument = 1, e.ts_event = pair_.naive.now, e.ts_recv = microrisk::NULL_TS, e.seq = call_;
    e.side = call_ % 3 == 0 ? side::ASK : side::BID, e.flags = flag::LAST;
    e.px = e.side == side::ASK ? 1003 : 997, e.qty = static_cast<std::int64_t>(call_ % 5);
    switch (call_ * 7 % 6) {
      case 0: pair_.engine.reset_book(1), pair_.naive.reset_book(1); return;
      case 1: e.action = 6; break;
      case 2: e.action = 1, e.flags = flag::SNAPSHOT, e.order_id = 1ULL << 40 | call_; break;
      default: e.action = 2; break;
    }
    pair_.engine.run_events(&e, 1);
    pair_.naive.apply(e);
  }

  // A call that ended at its limit must not have used a byte of the next message.
  void check_end() const { equal("offset behind a message", offset_, frames_.messages[naive_.messages - 1].end); }

  void follow() {
    while (naive_.messages < decoder_.messages) {
      if (naive_.messages == frames_.messages.size()) fail("message %llu is none", ull(decoder_.messages));
      const Bytes& m = frames_.messages[naive_.messages].bytes;
      const Meaning meaning = naive_.read(m, naive_.messages + 1, microrisk::NULL_TS);
      switch (meaning.kind) {
        case Meaning::Kind::EVENT: pair_.naive.apply(meaning.event); break;
        case Meaning::Kind::NO_EVENT: break;
        case Meaning::Kind::MALFORMED: pair_.naive.bad_message(Integrity::malformed, m, naive_.messages); break;
        case Meaning::Kind::UNKNOWN_TYPE: pair_.naive.bad_message(Integrity::unknown_type, m, naive_.messages); break;
      }
    }
  }

  static unsigned long long ull(std::uint64_t x) { return x; }

  Pair& pair_;
  const Bytes& wire_;
  const Frames frames_;
  ItchDecoder decoder_;
  NaiveItch naive_;
  const bool interludes_;
  std::size_t offset_ = 0, call_ = 0;
};

// The other way: the whole stream decoded first, its events applied in one call.
void compare_two_steps(const Engine& engine, const Bytes& wire, bool loose, const Setup& setup) {
  ItchDecoder decoder(0, loose);
  std::vector<Event> events;
  ItchDecoder::Message m{};
  Event e{};
  for (std::size_t offset = 0; decoder.next(wire.data(), wire.size(), offset, m) == ItchDecoder::Frame::MESSAGE;) {
    const auto outcome = decoder.message(m, decoder.messages + 1, microrisk::NULL_TS, e);
    if (outcome == ItchDecoder::Outcome::EVENT) events.push_back(e);
  }
  NaiveOptions options;
  options.always_open = setup.options.always_open;
  Setup plain;
  plain.options = options;
  Pair two(plain);
  two.engine.run_events(events.data(), events.size());
  equal("events of the two ways", engine.n_events, two.engine.n_events);
  equal("orders of the two ways", engine.store().live_orders(), two.engine.store().live_orders());
  for (const Instrument* in : two.engine.instruments()) {
    const Instrument* other = engine.find(in->book.instrument);
    if (other == nullptr) fail("instrument %u is missing in one way", in->book.instrument);
    std::int64_t a[40], b[40];
    two.engine.levels(*in, 10, a);
    engine.levels(*other, 10, b);
    if (std::memcmp(a, b, sizeof(a)) != 0) fail("levels of instrument %u differ in the two ways", in->book.instrument);
  }
}

std::size_t piece_of(std::uint8_t v) {
  return v == 0 ? std::size_t{1} << 20 : std::size_t{v} * (v > 128 ? 9 : 1);
}
std::uint64_t call_of(std::uint8_t v) {
  return pick({UINT64_MAX, std::uint64_t{1}, std::uint64_t{2}, std::uint64_t{3}, std::uint64_t{5}, std::uint64_t{8},
               std::uint64_t{16}, std::uint64_t{17}, std::uint64_t{33}, std::uint64_t{64}},
              v);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  Input in(data, size);
  std::uint8_t bits = in.byte(), more = in.byte();
  const std::uint8_t how = in.byte();
  if ((how & 8) == 0) bits &= 0xED, more &= 0x1F;  // no views, rows or prints: the way without Engine::apply()
  const Setup setup = Setup::from(bits, more);
  std::array<std::size_t, 4> pieces{};
  std::array<std::uint64_t, 4> calls{};
  for (std::size_t& p : pieces) p = piece_of(in.byte());
  for (std::uint64_t& c : calls) c = call_of(in.byte());
  const bool loose = (how & 1) != 0;
  Bytes wire = (how & 2) != 0 ? in.rest() : Writer(in).write();
  if ((how & 4) != 0) wire.insert(wire.end(), {0, 0});
  Pair pair(setup);
  Run(pair, wire, loose, (how & 0xF0) == 0xF0).go(pieces, calls);
  if ((how & 0xF0) == 0xF0) return 0;
  compare_two_steps(pair.engine, wire, loose, setup);
  return 0;
}
