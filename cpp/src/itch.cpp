#include "microrisk/itch.hpp"

#include <cstring>

namespace microrisk {

namespace {

// Unsigned big-endian integer of N bytes.
template <std::size_t N>
std::uint64_t be(const std::uint8_t* p) noexcept {
  std::uint64_t v = 0;
  for (std::size_t i = 0; i < N; ++i) v = v << 8 | p[i];
  return v;
}
template <>
std::uint64_t be<8>(const std::uint8_t* p) noexcept {
  std::uint64_t v;
  std::memcpy(&v, p, 8);
  return __builtin_bswap64(v);
}
template <>
std::uint64_t be<4>(const std::uint8_t* p) noexcept {
  std::uint32_t v;
  std::memcpy(&v, p, 4);
  return __builtin_bswap32(v);
}

template <std::size_t N>
std::int64_t signed_be(const std::uint8_t* p) noexcept {
  return static_cast<std::int64_t>(be<N>(p));
}

// Header fields are the same in every message.
using itch::add_order::locate_at;
using itch::add_order::timestamp_at;

// Side of a buy/sell code, NONE for anything else.
std::int8_t side_of(std::uint8_t code) noexcept {
  if (code == 'B') return side::BID;
  return code == 'S' ? side::ASK : side::NONE;
}

void set(Event& e, Action action, unsigned flags) noexcept {
  e.action = static_cast<std::uint8_t>(action);
  e.flags = static_cast<std::uint8_t>(flags | flag::LAST);
}

void set_state(Event& e, TradingState state) noexcept {
  set(e, Action::STATE, 0);
  e.ref = static_cast<std::uint64_t>(state);
}

// Add orders, with or without attribution, and trades share these fields.
bool read_order(const std::uint8_t* p, Event& e) noexcept {
  namespace a = itch::add_order;
  e.order_id = be<8>(p + a::ref_at);
  e.side = side_of(p[a::side_at]);
  e.qty = signed_be<4>(p + a::shares_at);
  e.px = signed_be<4>(p + a::price_at);
  return e.side != side::NONE;
}

void read_execution(const std::uint8_t* p, Event& e) noexcept {
  namespace x = itch::order_executed;
  e.order_id = be<8>(p + x::ref_at);
  e.qty = signed_be<4>(p + x::shares_at);
  e.ref = be<8>(p + x::match_at);
}

void read_replace(const std::uint8_t* p, Event& e) noexcept {
  namespace u = itch::order_replace;
  e.order_id = be<8>(p + u::ref_at);
  e.ref = be<8>(p + u::new_ref_at);
  e.qty = signed_be<4>(p + u::shares_at);
  e.px = signed_be<4>(p + u::price_at);
}

// False: more shares than an event can hold.
bool read_cross(const std::uint8_t* p, Event& e) noexcept {
  namespace q = itch::cross_trade;
  e.qty = signed_be<8>(p + q::shares_at);
  e.px = signed_be<4>(p + q::price_at);
  e.ref = be<8>(p + q::match_at);
  return e.qty >= 0;
}

bool read_trading_action(const std::uint8_t* p, Event& e) noexcept {
  switch (p[itch::trading_action::state_at]) {
    case 'H':
    case 'P': set_state(e, TradingState::HALTED); return true;
    case 'Q': set_state(e, TradingState::AUCTION); return true;
    case 'T': set_state(e, TradingState::TRADING); return true;
    default: return false;
  }
}

bool read_system_event(const std::uint8_t* p, Event& e) noexcept {
  e.instrument = ALL_INSTRUMENTS;
  switch (p[itch::system_event::event_at]) {
    case 'Q': set_state(e, TradingState::TRADING); return true;
    case 'M': set_state(e, TradingState::CLOSED); return true;
    default: return false;
  }
}

}  // namespace

void ItchDecoder::learn(const std::uint8_t* symbol, std::uint16_t locate, bool directory) noexcept {
  auto& known = symbols_[locate];
  std::uint64_t now;
  std::memcpy(&now, known.data(), 8);
  if (directory || now == 0) std::memcpy(known.data(), symbol, 8);
  std::memcpy(&now, known.data(), 8);
  if (now != 0) named_[locate >> 6] |= std::uint64_t{1} << (locate & 63);
}

void ItchDecoder::end(std::size_t size, std::size_t& offset) noexcept {
  ended = true;
  trailing += size - offset;
  offset = size;
}

ItchDecoder::Frame ItchDecoder::next(const std::uint8_t* data, std::size_t size, std::size_t& offset,
                                     Message& out) noexcept {
  std::size_t start = offset;
  std::size_t length = 0;
  if (mark_open_ && offset < size) {
    // the two zero bytes closed the previous buffer
    ended = itch::length_of(data[offset]) == 0;
    if (!ended && size - offset < itch::length_of(data[offset])) return Frame::INCOMPLETE;
    mark_open_ = false;
  } else if (!ended) {
    if (size - offset < 2) return Frame::INCOMPLETE;
    length = be<2>(data + offset);
    start += 2;
  }
  if (ended) {
    end(size, offset);
    return Frame::ENDED;
  }
  if (length == 0 || loose_) {
    if (start == size) {
      if (length != 0) return Frame::INCOMPLETE;  // a loose length: the byte behind it decides
      mark_open_ = true;
      end(size, offset = start);
      return Frame::ENDED;
    }
    const std::size_t own = itch::length_of(data[start]);
    if (own != 0) length = own;
    if (length == 0) {
      end(size, offset = start);
      return Frame::ENDED;
    }
  }
  if (size - start < length) return Frame::INCOMPLETE;
  out = Message{data + start, length};
  offset = start + length;
  return Frame::MESSAGE;
}

ItchDecoder::Outcome ItchDecoder::message(Message m, std::uint64_t seq, std::int64_t ts_recv, Event& out) noexcept {
  ++messages;
  const std::size_t expected = m.size == 0 ? 0 : itch::length_of(m.data[0]);
  if (expected == 0) {
    ++unknown_type;
    return Outcome::UNKNOWN_TYPE;
  }
  out = Event{};
  const Outcome outcome = expected == m.size ? decode(m.data, out) : Outcome::MALFORMED;
  if (outcome == Outcome::MALFORMED) {
    ++malformed;
    return outcome;
  }
  ++counts_[m.data[0]];
  last_ts = midnight_ns_ + signed_be<6>(m.data + timestamp_at);
  if (first_ts == NULL_TS) first_ts = last_ts;
  if (outcome == Outcome::NO_EVENT) return outcome;
  out.ts_event = last_ts;
  out.ts_recv = ts_recv;
  out.seq = seq;
  out.feed = static_cast<std::uint8_t>(FeedId::ITCH50);
  return outcome;
}

void ItchDecoder::reread(Message m, Event& out) noexcept {
  out = Event{};
  (void)decode(m.data, out);
  out.ts_event = last_ts;
  out.ts_recv = NULL_TS;
  out.seq = messages;
  out.feed = static_cast<std::uint8_t>(FeedId::ITCH50);
}

ItchDecoder::Outcome ItchDecoder::decode(const std::uint8_t* p, Event& e) noexcept {
  const auto locate = static_cast<std::uint16_t>(be<2>(p + locate_at));
  e.instrument = locate;
  switch (p[0]) {
    case 'A':
    case 'F':
      set(e, Action::ADD, 0);
      if (!read_order(p, e)) return Outcome::MALFORMED;
      learn(p + itch::add_order::stock_at, locate, false);
      return Outcome::EVENT;
    case 'E':
      set(e, Action::REDUCE, flag::EXEC);
      read_execution(p, e);
      return Outcome::EVENT;
    case 'C':
      set(e, Action::REDUCE,
          p[itch::order_executed_price::printable_at] == 'N' ? flag::EXEC | flag::NO_PRINT : flag::EXEC);
      read_execution(p, e);
      e.px = signed_be<4>(p + itch::order_executed_price::price_at);
      return Outcome::EVENT;
    case 'X':
      set(e, Action::REDUCE, 0);
      e.order_id = be<8>(p + itch::order_cancel::ref_at);
      e.qty = signed_be<4>(p + itch::order_cancel::shares_at);
      return Outcome::EVENT;
    case 'D':
      set(e, Action::DELETE, 0);
      e.order_id = be<8>(p + itch::order_delete::ref_at);
      return Outcome::EVENT;
    case 'U':
      set(e, Action::REPLACE, 0);
      read_replace(p, e);
      return Outcome::EVENT;
    case 'P':
      set(e, Action::TRADE, flag::HIDDEN);
      if (!read_order(p, e)) return Outcome::MALFORMED;
      e.ref = be<8>(p + itch::trade::match_at);
      learn(p + itch::trade::stock_at, locate, false);
      return Outcome::EVENT;
    case 'Q': set(e, Action::TRADE, flag::CROSS); return read_cross(p, e) ? Outcome::EVENT : Outcome::MALFORMED;
    case 'H': return read_trading_action(p, e) ? Outcome::EVENT : Outcome::NO_EVENT;
    case 'S': return read_system_event(p, e) ? Outcome::EVENT : Outcome::NO_EVENT;
    case 'R': learn(p + itch::stock_directory::stock_at, locate, true); return Outcome::NO_EVENT;
    default: return Outcome::NO_EVENT;
  }
}

}  // namespace microrisk
