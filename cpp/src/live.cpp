#include "microrisk/live.hpp"

#include <algorithm>
#include <cstring>
#include <stdexcept>

#include "bytes.hpp"
#include "event.hpp"

namespace microrisk {

using journal::Kind;

void StageTimes::add(const BatchTimes& batch, std::int64_t received, std::int64_t scored,
                     std::uint64_t messages) noexcept {
  const auto span = [](std::int64_t from, std::int64_t to) {
    return static_cast<std::uint64_t>(std::max<std::int64_t>(to - from, 0));
  };
  receive_taken.add(span(received, batch.taken), messages);
  taken_journalled.add(span(batch.taken, batch.journalled), messages);
  journalled_scored.add(span(batch.journalled, scored), messages);
  receive_scored.add(span(received, scored), messages);
}

LiveFeed::LiveFeed(Engine& engine, std::uint16_t number, std::int64_t midnight_ns, const std::string& session,
                   std::uint64_t expected, std::size_t window)
    : arbiter(number, midnight_ns, session, expected, window),
      engine_(engine),
      decoder_(midnight_ns, false),
      number_(number),
      midnight_ns_(midnight_ns),
      sessions_(session.empty() ? 0 : 1),
      session_(arbiter.session()),
      next_(expected) {}

std::uint64_t LiveFeed::apply(const Record& record) {
  switch (record.kind) {
    case Kind::RUN: return run(record, false);
    case Kind::IMAGE: return run(record, true);
    case Kind::IMAGE_BEGIN: empty_books(); return 0;
    case Kind::IMAGE_END: next_ = record.seq; break;
    case Kind::GAP:
      engine_.count(Integrity::gap, 1, ALL_INSTRUMENTS);
      if (record.size >= 8) next_ = record.seq + le<8>(record.body);
      break;
    case Kind::SESSION: begin_session(record); break;
    case Kind::END: ended_ = true; break;
    case Kind::DOUBT: engine_.doubt(ALL_INSTRUMENTS); return 0;
    default: return 0;
  }
  arbiter.follow(session_, next_, ended_);
  return 0;
}

std::uint64_t LiveFeed::run(const Record& record, bool image) {
  std::uint64_t seq = record.seq, n = 0;
  for (std::size_t at = 0; record.size - at >= 2; ++n, seq += !image) {
    const std::size_t size = be<2>(record.body + at);
    if (size > record.size - at - 2) break;
    if (size > 0) message(record.body + at + 2, size, seq, record.recv_ns, image);
    at += 2 + size;
  }
  messages_.add(n);
  if (image) return n;
  next_ = seq;
  arbiter.follow(session_, next_, ended_);
  return n;
}

void LiveFeed::message(const std::uint8_t* p, std::size_t size, std::uint64_t seq, std::int64_t recv_ns, bool image) {
  const bool adds = *p == 'A' || *p == 'F' || *p == 'P';
  const bool names = *p == 'R' || (adds && size > 2 && decoder_.unnamed(static_cast<std::uint16_t>(be<2>(p + 1))));
  Event e{};
  const ItchDecoder::Message m{p, size};
  switch (decoder_.message(m, seq, recv_ns, e)) {
    case ItchDecoder::Outcome::EVENT:
      // parts of an image are no news, and take the marks off
      if (image) e.flags = static_cast<std::uint8_t>(e.flags | flag::SNAPSHOT);
      engine_.apply(e);
      break;
    case ItchDecoder::Outcome::NO_EVENT: break;
    case ItchDecoder::Outcome::MALFORMED: engine_.bad_message(Integrity::malformed, decoder_, m); return;
    case ItchDecoder::Outcome::UNKNOWN_TYPE: engine_.bad_message(Integrity::unknown_type, decoder_, m); return;
  }
  names_version_.add(names);
}

void LiveFeed::empty_books() {
  for (const Instrument* in : engine_.instruments()) engine_.reset_book(in->book.instrument);
}

// Books are empty, states unknown, locates without names.
void LiveFeed::begin_session(const Record& record) {
  if (record.size < 8) return;
  std::memcpy(&midnight_ns_, record.body, 8);
  session_.assign(reinterpret_cast<const char*>(record.body) + 8, record.size - 8);
  next_ = record.seq;
  ended_ = false;
  if (sessions_++ > 0) {
    engine_.count(Integrity::session_reset, 1, ALL_INSTRUMENTS);
    empty_books();
    engine_.forget_states();
  }
  decoder_ = ItchDecoder(midnight_ns_, false);
  names_version_.add(1);
}

// ---- state ---------------------------------------------------------------------------------------------------------

namespace {

constexpr std::uint32_t STATE_MAGIC = 0x314C524D;  // "MRL1"

template <class T>
void put(Bytes& out, const T& value) {
  out.resize(out.size() + sizeof(T));
  std::memcpy(out.data() + out.size() - sizeof(T), &value, sizeof(T));
}

class Cut {
 public:
  Cut(const std::uint8_t* data, std::size_t size) : p_(data), left_(size) {}
  const std::uint8_t* take(std::size_t n) {
    if (n > left_) throw std::invalid_argument("feed state: it is cut");
    const std::uint8_t* at = p_;
    p_ += n, left_ -= n;
    return at;
  }
  template <class T>
  T get() {
    T value;
    std::memcpy(&value, take(sizeof(T)), sizeof(T));
    return value;
  }
  std::size_t left() const noexcept { return left_; }

 private:
  const std::uint8_t* p_;
  std::size_t left_;
};

}  // namespace

Bytes LiveFeed::save() const {
  Bytes out;
  put(out, STATE_MAGIC);
  put(out, midnight_ns_), put(out, next_), put(out, messages()), put(out, sessions_), put(out, names_version());
  put(out, static_cast<std::uint8_t>(ended_)), put(out, static_cast<std::uint8_t>(session_.size()));
  out.insert(out.end(), session_.begin(), session_.end());
  const auto& symbols = decoder_.symbols();
  for (std::size_t locate = 0; locate < symbols.size(); ++locate) {
    if (symbols[locate] == std::array<char, 8>{}) continue;
    put(out, static_cast<std::uint16_t>(locate));
    put(out, symbols[locate]);
  }
  return out;
}

void LiveFeed::load(const std::uint8_t* data, std::size_t size) {
  Cut in(data, size);
  if (in.get<std::uint32_t>() != STATE_MAGIC) throw std::invalid_argument("feed state: it does not begin as one");
  midnight_ns_ = in.get<std::int64_t>(), next_ = in.get<std::uint64_t>();
  messages_.set(in.get<std::uint64_t>());
  sessions_ = in.get<std::uint64_t>();
  names_version_.set(in.get<std::uint64_t>());
  ended_ = in.get<std::uint8_t>() != 0;
  const std::size_t name = in.get<std::uint8_t>();
  session_.assign(reinterpret_cast<const char*>(in.take(name)), name);
  decoder_ = ItchDecoder(midnight_ns_, false);
  while (in.left() > 0) {
    const auto locate = in.get<std::uint16_t>();
    decoder_.name(locate, in.take(8));
  }
  arbiter.follow(session_, next_, ended_);
}

}  // namespace microrisk
