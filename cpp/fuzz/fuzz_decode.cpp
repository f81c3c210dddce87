// libFuzzer target: bytes from outside, through every decoder, each compared with its naive twin.
//
// First byte: which way. 0 an ITCH stream, whole, byte after byte, and cut at places the input names. 1 and 2 a capture
// file with MoldUDP64 or IEX-TP inside. 3 and 4 the same captures written here from a script, so that the bytes that
// change are those of the transport and of its messages and not checks of lengths.
#include <algorithm>
#include <stdexcept>

#include "microrisk/iex.hpp"
#include "microrisk/itch.hpp"
#include "naive_iex.hpp"
#include "naive_itch.hpp"
#include "naive_packets.hpp"

namespace {

using namespace fuzz;
using microrisk::Capture;
using microrisk::Captures;
using microrisk::IexDecoder;
using microrisk::IexReader;
using microrisk::ItchDecoder;
using microrisk::MoldReader;
using microrisk::NULL_TS;

void same_event(const Event& ours, const Event& naive, std::size_t n) {
  if (std::memcmp(&ours, &naive, sizeof(Event)) == 0) return;
  fail(
      "event %zu: action %d id %llu ref %llu px %lld qty %lld side %d flags %d instrument %u ts %lld %lld seq %llu, "
      "naive action %d id %llu ref %llu px %lld qty %lld side %d flags %d instrument %u ts %lld %lld seq %llu",
      n, ours.action, static_cast<unsigned long long>(ours.order_id), static_cast<unsigned long long>(ours.ref),
      static_cast<long long>(ours.px), static_cast<long long>(ours.qty), ours.side, ours.flags, ours.instrument,
      static_cast<long long>(ours.ts_event), static_cast<long long>(ours.ts_recv),
      static_cast<unsigned long long>(ours.seq), naive.action, static_cast<unsigned long long>(naive.order_id),
      static_cast<unsigned long long>(naive.ref), static_cast<long long>(naive.px), static_cast<long long>(naive.qty),
      naive.side, naive.flags, naive.instrument, static_cast<long long>(naive.ts_event),
      static_cast<long long>(naive.ts_recv), static_cast<unsigned long long>(naive.seq));
}

void same_events(const std::vector<Event>& ours, const std::vector<Event>& naive) {
  for (std::size_t i = 0; i < ours.size() && i < naive.size(); ++i) same_event(ours[i], naive[i], i);
  equal("events", ours.size(), naive.size());
}

template <class Counts>
void same_types(const Counts& ours, const std::map<std::uint8_t, std::uint64_t>& naive) {
  for (std::size_t code = 0; code < 256; ++code) {
    const auto found = naive.find(static_cast<std::uint8_t>(code));
    equal("messages of a type", ours[code], found == naive.end() ? 0 : found->second);
  }
}

// ---- ITCH ----------------------------------------------------------------------------------------------------------

void same_itch(const ItchDecoder& ours, const NaiveItch& naive) {
  equal("messages", ours.messages, naive.messages);
  equal("malformed", ours.malformed, naive.malformed);
  equal("unknown types", ours.unknown_type, naive.unknown_type);
  equal("first_ts", ours.first_ts, naive.first_ts);
  equal("last_ts", ours.last_ts, naive.last_ts);
  same_types(ours.counts(), naive.counts);
  for (const auto& [locate, symbol] : naive.symbols) {
    if (std::memcmp(ours.symbols()[locate].data(), symbol.data(), 8) != 0) fail("the symbol of locate %u", locate);
  }
}

// Hands the stream over in pieces that end at `cuts` and at its end; each piece is a block of its own.
void itch_in_pieces(const Bytes& wire, const std::vector<std::size_t>& cuts, bool loose, std::int64_t midnight) {
  const Frames frames = itch_frames(wire, loose);
  NaiveItch naive(midnight);
  std::vector<Event> expected, got;
  for (const Framed& m : frames.messages) {
    const Meaning meaning = naive.read(m.bytes, naive.messages + 1, NULL_TS);
    if (meaning.kind == Meaning::Kind::EVENT) expected.push_back(meaning.event);
  }
  ItchDecoder decoder(midnight, loose);
  std::size_t used = 0, n = 0;
  for (const std::size_t end : cuts) {
    const Block block(wire.data() + used, end - used);
    std::size_t offset = 0;
    ItchDecoder::Message m{};
    ItchDecoder::Frame frame;
    while ((frame = decoder.next(block.data(), block.size(), offset, m)) == ItchDecoder::Frame::MESSAGE) {
      if (n == frames.messages.size()) fail("message %zu is none", n);
      const Bytes& bytes = frames.messages[n++].bytes;
      if (m.size != bytes.size() || std::memcmp(m.data, bytes.data(), m.size) != 0) fail("the bytes of message %zu", n);
      Event e{};
      if (decoder.message(m, decoder.messages + 1, NULL_TS, e) == ItchDecoder::Outcome::EVENT) got.push_back(e);
    }
    used += offset;
    if (used > end) fail("the decoder went behind the end of its buffer");
  }
  same_events(got, expected);
  same_itch(decoder, naive);
  equal("trailing", decoder.trailing, frames.trailing);
  equal("ended", decoder.ended, frames.ended);
  // a mark at the end of a piece is consumed even when a message then shows that it was a length of zero
  const bool mark = used == frames.rest + 2 && wire[frames.rest] == 0 && wire[frames.rest + 1] == 0;
  equal("consumed", mark ? frames.rest : used, frames.rest);
}

void itch(Input in) {
  const std::uint8_t how = in.byte();
  std::vector<std::size_t> some;
  for (int i = 0; i < 3; ++i) some.push_back(in.word());
  const Bytes wire = in.rest();
  const bool loose = (how & 1) != 0;
  const std::int64_t midnight = (how & 2) != 0 ? 1'577'682'000'000'000'000 : 0;
  for (std::size_t& cut : some) cut %= wire.size() + 1;
  std::sort(some.begin(), some.end());
  some.push_back(wire.size());
  itch_in_pieces(wire, {wire.size()}, loose, midnight);
  itch_in_pieces(wire, some, loose, midnight);
  if (wire.size() > 1024) return;
  std::vector<std::size_t> every;
  for (std::size_t end = 1; end <= wire.size(); ++end) every.push_back(end);
  itch_in_pieces(wire, every, loose, midnight);
}

// ---- captures ------------------------------------------------------------------------------------------------------

void same_capture(const CaptureCounts& ours, const CaptureCounts& naive) {
  equal("packets", ours.packets, naive.packets);
  equal("datagrams", ours.datagrams, naive.datagrams);
  equal("other packets", ours.other, naive.other);
  equal("fragments", ours.fragments, naive.fragments);
  equal("cut packets", ours.cut, naive.cut);
  equal("truncated at", ours.truncated_at, naive.truncated_at);
}

void same_transport(const TransportCounts& ours, const TransportCounts& naive) {
  static constexpr const char* names[] = {"packets",   "messages",    "heartbeats", "requests",  "ended",
                                          "gap",       "missing",     "late",       "duplicate", "session reset",
                                          "malformed", "unsequenced", "trailing",   "foreign"};
  static_assert(sizeof(TransportCounts) == sizeof(names) / sizeof(names[0]) * 8);
  std::uint64_t a[std::size(names)], b[std::size(names)];
  std::memcpy(a, &ours, sizeof(a)), std::memcpy(b, &naive, sizeof(b));
  for (std::size_t i = 0; i < std::size(names); ++i) equal(names[i], a[i], b[i]);
}

void same_gaps(const std::vector<microrisk::Gap>& ours, const std::vector<NaiveGap>& naive) {
  equal("gaps", ours.size(), naive.size());
  for (std::size_t i = 0; i < ours.size(); ++i) {
    if (ours[i].session != naive[i].session) fail("the session of gap %zu", i);
    equal("first missing", ours[i].first, naive[i].first);
    equal("how many are missing", ours[i].count, naive[i].count);
    equal("time of a gap", ours[i].ts_recv, naive[i].ts);
  }
}

// The files twice: as blocks of their own for ours, read to the end for the naive reader.
struct Files {
  explicit Files(const std::vector<Bytes>& files) {
    for (const Bytes& file : files) {
      NaiveCapture reader;
      naive_ok = reader.read(file) && naive_ok;
      naive.push_back(std::move(reader));
      blocks.push_back(std::make_unique<Block>(file.data(), file.size()));
    }
  }

  // False: not a capture, for both.
  bool open() {
    std::vector<Capture> all;
    try {
      for (const auto& block : blocks) all.emplace_back(block->data(), block->size());
    } catch (const std::invalid_argument&) {
      if (naive_ok) fail("a capture is refused");
      return false;
    }
    if (!naive_ok) fail("something else than a capture is read");
    ours = std::make_unique<Captures>(std::move(all));
    return true;
  }

  void compare() const {
    for (std::size_t i = 0; i < naive.size(); ++i) same_capture(ours->all()[i].counts, naive[i].counts);
  }

  std::vector<std::unique_ptr<Block>> blocks;
  std::vector<NaiveCapture> naive;
  std::unique_ptr<Captures> ours;
  bool naive_ok = true;
};

void datagrams(const std::vector<Bytes>& list) {
  Files files(list);
  if (!files.open()) return;
  microrisk::Datagram d;
  for (const NaiveDatagram& expected : merge(files.naive)) {
    if (!files.ours->next(d)) fail("a datagram is missing");
    equal("time of a datagram", d.ts, expected.ts);
    equal("address", d.dst, expected.dst);
    equal("port", d.port, expected.port);
    equal("cut", d.cut, expected.cut);
    if (Bytes(d.data, d.data + d.size) != expected.payload) fail("the payload of a datagram");
  }
  if (files.ours->next(d)) fail("one datagram too many");
  files.compare();
}

// Room for a few events at a time, so that every way of stopping and going on is taken.
template <class Pull>
std::vector<Event> pull_all(std::size_t room, Pull pull) {
  std::vector<Event> out;
  for (;;) {
    const std::unique_ptr<Event[]> block(new Event[room]);
    const microrisk::Pulled done = pull(block.get(), room);
    if (done.events > room) fail("more events than room");
    out.insert(out.end(), block.get(), block.get() + done.events);
    if (!done.more) return out;
  }
}

void mold(const std::vector<Bytes>& list, std::uint8_t how) {
  Files files(list);
  if (!files.open()) return;
  NaiveMold naive;
  NaiveItch naive_itch(0);
  std::vector<Event> expected;
  for (const NaiveDatagram& d : merge(files.naive)) {
    for (const NaiveBlock& b : naive.read(d)) {
      if (b.bytes.empty()) continue;
      const Meaning m = naive_itch.read(b.bytes, b.seq, b.ts == 0 ? NULL_TS : b.ts);
      if (m.kind == Meaning::Kind::EVENT) expected.push_back(m.event);
    }
  }
  MoldReader reader;
  ItchDecoder decoder(0, false);
  const auto got = pull_all(1 + how % 16U, [&](Event* out, std::size_t room) {
    return pull(*files.ours, reader, out, room, 1, 1 + how / 16U, [&](const microrisk::Block& b, Event* at) {
      const std::int64_t ts = b.ts == 0 ? NULL_TS : b.ts;
      return std::size_t{decoder.message({b.data, b.size}, b.seq, ts, *at) == ItchDecoder::Outcome::EVENT};
    });
  });
  same_events(got, expected);
  same_transport(reader.counts, naive.counts);
  same_gaps(reader.gaps, naive.gaps);
  same_itch(decoder, naive_itch);
  files.compare();
}

void iex(const std::vector<Bytes>& list, std::uint8_t how, std::uint16_t protocol) {
  Files files(list);
  if (!files.open()) return;
  NaiveIexTransport transport(protocol);
  NaiveIex naive(protocol);
  for (const NaiveDatagram& d : merge(files.naive)) {
    const NaiveSegment segment = transport.read(d);
    if (segment.restart_sent) naive.restart(*segment.restart_sent, d.ts, segment.first);
    for (const NaiveBlock& b : segment.blocks) {
      if (!b.bytes.empty()) naive.read(b);
    }
  }
  IexReader reader(protocol);
  IexDecoder decoder(protocol);
  const auto got = pull_all(IexDecoder::MAX_EVENTS + how % 16U, [&](Event* out, std::size_t room) {
    return pull_iex(*files.ours, reader, decoder, out, room, 1 + how / 16U);
  });
  same_events(got, naive.events);
  same_transport(reader.counts, transport.counts);
  same_gaps(reader.gaps, transport.gaps);
  equal("messages", decoder.messages, naive.messages);
  equal("malformed", decoder.malformed, naive.malformed);
  equal("unknown types", decoder.unknown_type, naive.unknown_type);
  equal("synthetic", decoder.synthetic, naive.synthetic);
  equal("first_ts", decoder.first_ts, naive.first_ts);
  equal("last_ts", decoder.last_ts, naive.last_ts);
  same_types(decoder.counts(), naive.counts);
  equal("symbols", decoder.symbols().size(), naive.symbols.size());
  for (std::size_t i = 0; i < naive.symbols.size(); ++i) {
    if (std::memcmp(decoder.symbols()[i].data(), naive.symbols[i].data(), 8) != 0) fail("symbol %zu", i);
  }
  files.compare();
}

// ---- captures from a script ----------------------------------------------------------------------------------------

// Writes one or two captures of one kind: classic or blocks, either byte order, Ethernet, VLAN, cooked or raw link.
class CaptureWriter {
 public:
  CaptureWriter(std::uint8_t how, std::uint8_t quirk)
      : big_((how & 1) != 0), blocks_((how & 2) != 0), link_(how >> 2 & 3U), quirk_(quirk) {
    if (link_ == 3 && (quirk & 1) != 0) link_ = 4;
    for (Bytes& file : files_) blocks_ ? section(file, (how & 16) != 0) : header(file, (how & 16) != 0);
    two_ = (how & 32) != 0;
    snap_ = (how & 64) != 0 ? 90 : SIZE_MAX;
    lost_ = (how & 128) != 0 ? 7 : 0;
  }

  void datagram(const Bytes& payload, std::uint64_t ts, std::size_t line) {
    const Bytes whole = frame(payload);
    const Bytes kept = slice(whole, 0, snap_);
    Bytes& file = files_[two_ ? line % 2 : 0];
    if (blocks_) {
      packet_block(file, kept, whole.size(), ts, line);
    } else {
      put(file, 4, ts / 1'000'000'000), put(file, 4, ts % 1'000'000'000), put(file, 4, kept.size());
      put(file, 4, whole.size());
      file.insert(file.end(), kept.begin(), kept.end());
    }
  }

  std::vector<Bytes> files() {
    for (Bytes& file : files_) file.resize(file.size() - std::min(lost_, file.size() - 24));
    if (!two_) files_.pop_back();
    return files_;
  }

 private:
  void put(Bytes& to, std::size_t n, std::uint64_t value) const {
    for (std::size_t i = 0; i < n; ++i) to.push_back(static_cast<std::uint8_t>(value >> 8 * (big_ ? n - 1 - i : i)));
  }
  static void wire(Bytes& to, std::initializer_list<unsigned> bytes) {
    for (const unsigned b : bytes) to.push_back(static_cast<std::uint8_t>(b));
  }
  // Enhanced, simple and obsolete packet blocks in turn; now and then of an interface that is not there, or too short.
  void packet_block(Bytes& file, const Bytes& kept, std::size_t whole, std::uint64_t ts, std::size_t line) const {
    const unsigned kind = pick({6U, 6U, 6U, 2U, 3U, 5U, 6U, 3U}, quirk_ >> 1 & 7U & line);
    Bytes body;
    if (kind == 6) put(body, 4, quirk_ == 255 && line % 4 == 0 ? 9 : 0);
    if (kind == 2) put(body, 2, 0), put(body, 2, 0);
    if (kind != 3) put(body, 4, ts >> 32), put(body, 4, ts % (1ULL << 32)), put(body, 4, kept.size());
    put(body, 4, whole);
    body.insert(body.end(), kept.begin(), kept.end());
    if (quirk_ == 254 && line % 8 == 3) body.resize(line / 8 % 24);
    block(file, kind, body);
  }
  void header(Bytes& file, bool micro) const {
    put(file, 4, micro ? 0xA1B2C3D4 : 0xA1B23C4D), put(file, 2, 2), put(file, 2, 4), put(file, 8, 0);
    put(file, 4, 65535), put(file, 4, link());
  }
  void section(Bytes& file, bool nano) const {
    Bytes body;
    put(body, 4, 0x1A2B3C4D), put(body, 4, 1), put(body, 8, UINT64_MAX);
    block(file, 0x0A0D0D0A, body);
    body.clear();
    put(body, 2, link()), put(body, 2, 0), put(body, 4, 65535);
    if (nano) option(body, 9, 1, pick({9U, 9U, 6U, 0x80U + 20, 0x80U + 127, 60U, 127U, 0U}, quirk_ >> 4));
    if ((quirk_ & 0x90) == 0x90)
      option(body, 14, 8, pick({std::uint64_t{1}, UINT64_MAX, std::uint64_t{1} << 62}, quirk_));
    if ((quirk_ & 0x88) == 0x88) option(body, 9, 3, 0), option(body, 14, 4, 1), option(body, 2, 5, 0x616161);
    if (quirk_ == 0x55) body.resize(6);  // too short to be an interface
    put(body, 4, 0);
    block(file, 1, body);
  }
  void option(Bytes& to, unsigned code, unsigned size, std::uint64_t value) const {
    put(to, 2, code), put(to, 2, size), put(to, size, value);
    while (to.size() % 4 != 0) to.push_back(0);
  }
  void block(Bytes& file, std::uint64_t kind, Bytes body) const {
    while (body.size() % 4 != 0) body.push_back(0);
    put(file, 4, kind), put(file, 4, body.size() + 12);
    file.insert(file.end(), body.begin(), body.end());
    put(file, 4, body.size() + 12);
  }
  std::uint64_t link() const { return pick({1U, 1U, 113U, 101U, 276U}, link_); }

  Bytes frame(const Bytes& payload) const {
    Bytes out;
    const auto size = static_cast<unsigned>(payload.size());
    if (link_ < 2) wire(out, {1, 0, 0x5E, 0, 0, 1, 2, 0, 0, 0, 0, 1});
    if (link_ == 1) wire(out, {0x81, 0, 0, 7});
    if (link_ == 2) wire(out, {0, 0, 0, 1, 0, 6, 2, 0, 0, 0, 0, 1, 0, 0});
    if (link_ == 4) wire(out, {8, 0, 0, 0, 0, 0, 0, 1, 0, 1, 0, 6, 2, 0, 0, 0, 0, 1, 0, 0});
    if (link_ < 3) wire(out, {8, 0});
    wire(out,
         {0x45, 0, (28 + size) >> 8, (28 + size) & 255, 0, 0, 0x40, 0, 16, 17, 0, 0, 192, 0, 2, 1, 233, 54, 12, 1});
    wire(out, {0x65, 0x90, 0x67, 0x6D, (8 + size) >> 8, (8 + size) & 255, 0, 0});
    out.insert(out.end(), payload.begin(), payload.end());
    return out;
  }

  std::vector<Bytes> files_{2};
  bool big_, blocks_, two_ = false;
  std::uint8_t link_, quirk_;
  std::size_t snap_ = SIZE_MAX, lost_ = 0;
};

void number_into(Bytes& to, std::size_t n, std::uint64_t value, bool big) {
  for (std::size_t i = 0; i < n; ++i) to.push_back(static_cast<std::uint8_t>(value >> 8 * (big ? n - 1 - i : i)));
}

// A message of the right length whose fields come from the input; `kind` picks the type, and now and then damages it.
Bytes message(Input& in, const char* types, std::size_t (*length)(std::uint8_t, std::uint64_t), std::uint64_t protocol,
              bool big) {
  const std::uint8_t kind = in.byte();
  const auto type = static_cast<std::uint8_t>(types[kind % std::strlen(types)]);
  const std::size_t n = length(type, protocol);
  Bytes out{type};
  const std::uint8_t own = in.byte();
  if (big) {
    number_into(out, 2, own % 4U, true), number_into(out, 2, 0, true), number_into(out, 6, own * 1000ULL, true);
  } else {
    out.push_back(own);
    number_into(out, 8, 1'600'000'000'000'000'000 + own * 1'000ULL, false);
    const char* symbol = pick({"ZVZZT   ", "IEXE    ", "A       ", " BAD    "}, own >> 1);
    out.insert(out.end(), symbol, symbol + 8);
  }
  const Bytes rest = in.take(std::min<std::size_t>(in.byte() % 12U, n));
  out.insert(out.end(), rest.begin(), rest.end());
  while (out.size() < n) out.push_back(static_cast<std::uint8_t>(out.size() == 19 && big ? 'B' : 0));
  if (big || kind < 0xE0) out.resize(n);
  if (kind >= 0xF0) out.resize(kind % 16U * n / 16);
  return out;
}

std::size_t length_of_itch(std::uint8_t type, std::uint64_t) {
  return itch_length(type);
}
std::size_t length_of_iex(std::uint8_t type, std::uint64_t protocol) {
  std::size_t sum = 0;
  if (const auto* sizes = iex_sizes(protocol, type)) {
    for (const std::size_t n : *sizes) sum += n;
  }
  return sum;
}

// Length-prefixed messages, one of them now and then with a wrong length.
Bytes messages(Input& in, std::size_t n, const char* types, std::uint64_t protocol, bool big) {
  Bytes out;
  for (std::size_t i = 0; i < n && !in.empty(); ++i) {
    const Bytes m = message(in, types, big ? length_of_itch : length_of_iex, protocol, big);
    number_into(out, 2, m.size(), big);
    out.insert(out.end(), m.begin(), m.end());
  }
  return out;
}

// A sequence near the one that comes next, or far off.
std::uint64_t sequence(Input& in, std::uint64_t next) {
  const std::uint8_t v = in.byte();
  if (v < 160) return next;
  if (v < 240) return next + v % 16U - std::min<std::uint64_t>(next, 8);
  return pick({std::uint64_t{0}, UINT64_MAX, std::uint64_t{1} << 63, UINT64_MAX - 3, std::uint64_t{1},
               static_cast<std::uint64_t>(INT64_MAX), static_cast<std::uint64_t>(INT64_MAX) - 2},
              v);
}

// Trading status of 128 securities that appear for the first time.
Bytes many_symbols(std::size_t line) {
  Bytes out;
  for (std::size_t i = 0; i < 128; ++i) {
    number_into(out, 2, 22, false);
    out.push_back('H'), out.push_back('T');
    number_into(out, 8, 1'600'000'000'000'000'000, false);
    for (std::size_t n = line * 128 + i, k = 0; k < 8; ++k, n /= 26)
      out.push_back(static_cast<std::uint8_t>('A' + n % 26));
    number_into(out, 4, 0, false);
  }
  return out;
}

void script(Input in, bool is_iex) {
  const std::uint8_t kind = in.byte();
  CaptureWriter writer(kind, in.byte());
  const std::uint8_t how = in.byte();
  const std::uint16_t protocol = pick({std::uint16_t{0x8003}, std::uint16_t{0x8004}, std::uint16_t{0x8005}}, how >> 1);
  std::uint64_t next = 1, ts = 1'600'000'000'000'000'000, offset = 0;
  for (std::size_t line = 0; !in.empty() && line < 300; ++line) {
    const std::uint8_t op = in.byte();
    const std::uint64_t seq = sequence(in, next);
    ts += (op & 8) != 0 ? 2'000'000'000 : 1000;
    const std::size_t n = (op & 7) == 7 ? 0 : op & 7U;
    const Bytes body = op == 14 && is_iex
                           ? many_symbols(line)
                           : messages(in, n, is_iex ? "85TQaMRLHSDCXABEIOPz" : "AFECXDUPQSRHz", protocol, !is_iex);
    const std::uint64_t count = op == 14 && is_iex ? 128 : (op & 16) != 0 ? in.byte() : n;
    Bytes payload;
    if (is_iex) {
      payload = {1, 0};
      number_into(payload, 2, op == 255 ? 0x8000U : protocol, false), number_into(payload, 4, 1, false);
      number_into(payload, 4, (op & 32) != 0 ? 2U : 1U, false);
      number_into(payload, 2, body.size() + ((op & 64) != 0 ? in.byte() : 0U), false);
      number_into(payload, 2, count, false);
      number_into(payload, 8, seq == 1 ? 0 : offset, false), number_into(payload, 8, seq, false);
      number_into(payload, 8, ts, false);
    } else {
      const char* session = (op & 32) != 0 ? "SESSION  B" : "SESSION  A";
      payload.assign(session, session + 10);
      number_into(payload, 8, seq, true), number_into(payload, 2, (op & 64) != 0 ? 0xFFFF : count, true);
    }
    payload.insert(payload.end(), body.begin(), body.end());
    if ((op & 128) != 0) payload.resize(in.byte() * payload.size() / 255);
    writer.datagram(payload, ts, op);
    if (seq == next) next += count;
    offset += body.size();
  }
  const std::vector<Bytes> files = writer.files();
  is_iex ? iex(files, how, protocol) : mold(files, how);
}

void capture(Input in, bool is_iex) {
  const std::uint8_t how = in.byte();
  const std::size_t cut = in.word();
  Bytes file = in.rest();
  std::vector<Bytes> files{file};
  if ((how & 1) != 0 && cut < file.size()) files = {slice(file, 0, cut), slice(file, cut, file.size())};
  datagrams(files);
  is_iex ? iex(files, how, static_cast<std::uint16_t>(0x8003 + (how >> 1) % 3)) : mold(files, how);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  Input in(data, size);
  switch (in.byte() % 5) {
    case 0: itch(in); break;
    case 1: capture(in, false); break;
    case 2: capture(in, true); break;
    case 3: script(in, false); break;
    default: script(in, true); break;
  }
  return 0;
}
