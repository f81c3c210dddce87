#include "microrisk/iex.hpp"

#include <algorithm>
#include <cstring>

#include "bytes.hpp"

namespace microrisk {

namespace {

constexpr std::uint32_t MAX_SYMBOLS = 1U << 20;  // as many as an engine has instruments
constexpr std::int64_t RESTART_AFTER = NS_PER_S;

// The same place in every message.
using iex::system_event::timestamp_at;
using iex::trading_status::symbol_at;

std::int64_t signed_le(const std::uint8_t* p) noexcept {
  return static_cast<std::int64_t>(le<8>(p));
}

std::int64_t size_of(const std::uint8_t* p) noexcept {
  return static_cast<std::int64_t>(le<4>(p));
}

// Printable, and not all padding.
bool is_symbol(const std::uint8_t* p) noexcept {
  for (std::size_t i = 0; i < 8; ++i) {
    if (p[i] < 0x20 || p[i] > 0x7E) return false;
  }
  return p[0] != ' ';
}

std::int8_t side_of(std::uint8_t code) noexcept {
  if (code == '8') return side::BID;
  return code == '5' ? side::ASK : side::NONE;
}

void set(Event& e, Action action, unsigned flags = 0) noexcept {
  e.action = static_cast<std::uint8_t>(action);
  e.flags = static_cast<std::uint8_t>(flags);
}

void set_level(Event& e, std::int8_t side, std::int64_t px, std::int64_t qty) noexcept {
  set(e, Action::MODIFY);
  e.side = side, e.px = px, e.qty = qty;
}

unsigned cross_flag(const std::uint8_t* p) noexcept {
  return (p[iex::trade::flags_at] & iex::SALE_CROSS) != 0 ? flag::CROSS : 0U;
}

void read_trade(const std::uint8_t* p, Event& e, bool hidden) noexcept {
  namespace t = iex::trade;
  set(e, Action::TRADE, cross_flag(p) | (hidden ? flag::HIDDEN : 0U));
  e.qty = size_of(p + t::size_at);
  e.px = signed_le(p + t::price_at);
  e.ref = le<8>(p + t::trade_id_at);
}

// Add and modify share these fields.
void read_order(const std::uint8_t* p, Event& e) noexcept {
  namespace a = iex::add_order;
  e.order_id = le<8>(p + a::order_id_at);
  e.qty = size_of(p + a::size_at);
  e.px = signed_le(p + a::price_at);
}

// A priority that is lost, at the same price and a smaller size too, is what REPLACE says.
void read_modify(const std::uint8_t* p, Event& e) noexcept {
  read_order(p, e);
  if ((p[iex::order_modify::flags_at] & 1) != 0) return set(e, Action::MODIFY, flag::PRIORITY_KEPT);
  set(e, Action::REPLACE);
  e.ref = e.order_id;
}

void read_execution(const std::uint8_t* p, Event& e) noexcept {
  namespace x = iex::order_executed;
  set(e, Action::REDUCE, flag::EXEC | cross_flag(p));
  e.order_id = le<8>(p + x::order_id_at);
  e.qty = size_of(p + x::size_at);
  e.px = signed_le(p + x::price_at);
  e.ref = le<8>(p + x::trade_id_at);
}

bool read_status(const std::uint8_t* p, Event& e) noexcept {
  TradingState state;
  switch (p[iex::trading_status::status_at]) {
    case 'H':
    case 'P': state = TradingState::HALTED; break;
    case 'O': state = TradingState::AUCTION; break;
    case 'T': state = TradingState::TRADING; break;
    default: return false;
  }
  set(e, Action::STATE);
  e.ref = static_cast<std::uint64_t>(state);
  return true;
}

}  // namespace

// ---- segments ------------------------------------------------------------------------------------------------------

Sequence& IexReader::session(const Key& key) {
  if (last_ != nullptr && last_key_ == key) return *last_;
  last_key_ = key;
  last_ = &sessions_[key];
  return *last_;
}

void IexReader::restart_at(const Datagram& datagram, std::uint64_t seq) noexcept {
  ++counts.session_reset;
  restarted_ = true;
  restart_ = Restart{signed_le(datagram.data + iex::segment::send_time_at), datagram.ts, seq};
}

bool IexReader::take_restart(Restart& out) noexcept {
  const bool was = restarted_;
  restarted_ = false;
  out = restart_;
  return was;
}

void IexReader::open(const Datagram& datagram) {
  namespace s = iex::segment;
  datagram_ = datagram;
  left_ = 0;
  const std::uint8_t* p = datagram.data;
  if (datagram.size < iex::SEGMENT_LENGTH || p[s::version_at] != iex::SEGMENT_VERSION) {
    counts.malformed += datagram.size >= iex::SEGMENT_LENGTH || !datagram.cut;
    return;
  }
  if (le<2>(p + s::protocol_at) != protocol_) {
    ++counts.foreign;
    return;
  }
  const std::uint64_t count = le<2>(p + s::count_at), first = le<8>(p + s::first_at);
  if (first == 0 || first > static_cast<std::uint64_t>(INT64_MAX) - count) {
    ++counts.malformed;
    return;
  }
  ++counts.packets;
  const bool begun = !sessions_.empty();
  const std::size_t sessions = sessions_.size();
  Sequence& now = session({le<4>(p + s::channel_at), le<4>(p + s::session_at)});
  const std::int64_t sent = signed_le(p + s::send_time_at);
  if (begun && sessions_.size() != sessions) {
    now.expected = 1;
    restart_at(datagram, first);
  } else if (first == 1 && now.expected > 1 && le<8>(p + s::stream_offset_at) == 0 &&
             static_cast<__int128>(sent) - now.newest > RESTART_AFTER) {
    now.restart();
    restart_at(datagram, first);
  }
  now.newest = std::max(now.newest, sent);
  const std::string name(reinterpret_cast<const char*>(p + s::session_at), 4);
  now.open(first, name, datagram.ts, counts, gaps);
  const std::size_t says = iex::SEGMENT_LENGTH + le<2>(p + s::payload_at);
  broken_ = says > datagram.size;
  counts.malformed += broken_ && !datagram.cut;
  end_ = std::min(says, datagram.size);
  counts.trailing += datagram.size - end_;
  offset_ = iex::SEGMENT_LENGTH;
  counts.heartbeats += count == 0;
  if (count == 0) counts.trailing += end_ - offset_;
  seq_ = first;
  left_ = count;
}

bool IexReader::next(Block& out) noexcept {
  while (left_ > 0) {
    const std::uint8_t* p = datagram_.data + offset_;
    const std::size_t there = end_ - offset_;
    const std::size_t size = there < 2 ? 0 : le<2>(p);
    if (there < 2 || size > there - 2) {
      counts.malformed += !broken_;
      left_ = 0;
      return false;
    }
    offset_ += 2 + size;
    if (--left_ == 0) counts.trailing += end_ - offset_;
    const std::uint64_t seq = seq_++;
    if (!last_->take(seq, counts)) continue;
    ++counts.messages;
    out = Block{p + 2, size, seq, datagram_.ts};
    return true;
  }
  return false;
}

// ---- messages ------------------------------------------------------------------------------------------------------

IexDecoder::IexDecoder(std::uint16_t protocol) : protocol_(protocol), slots_(1024) {
  for (std::size_t code = 0; code < lengths_.size(); ++code) {
    lengths_[code] = static_cast<std::uint8_t>(iex::length_of(protocol, static_cast<unsigned char>(code)));
  }
}

std::uint32_t IexDecoder::instrument(const std::uint8_t* symbol) {
  std::size_t at = le<8>(symbol) * 0x9E3779B97F4A7C15U >> 32;
  for (;; ++at) {
    const std::uint32_t number = slots_[at & (slots_.size() - 1)];
    if (number == 0) break;
    if (std::memcmp(symbols_[number - 1].data(), symbol, 8) == 0) return number - 1;
  }
  const auto fresh = static_cast<std::uint32_t>(symbols_.size());
  if (fresh == MAX_SYMBOLS) return fresh;
  std::memcpy(symbols_.emplace_back().data(), symbol, 8);
  known_.emplace_back();
  slots_[at & (slots_.size() - 1)] = fresh + 1;
  if (symbols_.size() * 2 > slots_.size()) rehash();
  return fresh;
}

void IexDecoder::rehash() {
  slots_.assign(slots_.size() * 2, 0);
  for (std::uint32_t i = 0; i < symbols_.size(); ++i) {
    std::uint64_t key;
    std::memcpy(&key, symbols_[i].data(), 8);
    std::size_t at = key * 0x9E3779B97F4A7C15U >> 32;
    while (slots_[at & (slots_.size() - 1)] != 0) ++at;
    slots_[at & (slots_.size() - 1)] = i + 1;
  }
}

IexDecoder::Outcome IexDecoder::message(const Block& block, Event* out, std::size_t& n) {
  ++messages;
  n = 0;
  const std::size_t least = block.size == 0 ? 0 : lengths_[block.data[0]];
  if (least == 0) {
    ++unknown_type;
    return Outcome::UNKNOWN_TYPE;
  }
  const std::uint8_t* p = block.data;
  Outcome outcome = Outcome::MALFORMED;
  std::uint32_t index = MAX_SYMBOLS;
  if (block.size >= least && p[0] == 'S') {
    outcome = Outcome::NO_EVENT;
  } else if (block.size >= least && is_symbol(p + symbol_at) && (index = instrument(p + symbol_at)) < MAX_SYMBOLS) {
    out[0] = Event{};
    outcome = decode(p, out, n, known_[index]);
  }
  if (outcome == Outcome::MALFORMED) {
    ++malformed;
    return outcome;
  }
  ++counts_[p[0]];
  last_ts = signed_le(p + timestamp_at);
  if (first_ts == NULL_TS) first_ts = last_ts;
  for (std::size_t i = 0; i < n; ++i) {
    out[i].ts_event = last_ts;
    out[i].ts_recv = block.ts == 0 ? NULL_TS : block.ts;
    out[i].seq = block.seq;
    out[i].instrument = index;
    out[i].feed = static_cast<std::uint8_t>(FeedId::IEX);
  }
  if (n > 0 && !known_[index].in_transition) out[n - 1].flags |= flag::LAST;
  return outcome;
}

IexDecoder::Outcome IexDecoder::decode(const std::uint8_t* p, Event* out, std::size_t& n, Known& known) noexcept {
  Event& e = out[0];
  n = 1;
  switch (p[0]) {
    case '8':
    case '5':
      namespace l
      = iex::price_level_buy;
      known.in_transition = (p[l::flags_at] & 1) == 0;
      known.booked = true;
      set_level(e, side_of(p[0]), signed_le(p + l::price_at), size_of(p + l::size_at));
      return Outcome::EVENT;
    case 'Q': quote(p, out, n, known); return Outcome::EVENT;
    case 'a':
      set(e, Action::ADD);
      e.side = side_of(p[iex::add_order::side_at]);
      if (e.side == side::NONE) {
        n = 0;
        return Outcome::MALFORMED;
      }
      known.booked = true;
      read_order(p, e);
      return Outcome::EVENT;
    case 'M':
      known.booked = true;
      read_modify(p, e);
      return Outcome::EVENT;
    case 'R':
      set(e, Action::DELETE);
      e.order_id = le<8>(p + iex::order_delete::order_id_at);
      return Outcome::EVENT;
    case 'L': read_execution(p, e); return Outcome::EVENT;
    case 'C': set(e, Action::CLEAR); return Outcome::EVENT;
    case 'T': read_trade(p, e, protocol_ == iex::DEEP_PLUS); return Outcome::EVENT;
    case 'H':
      if (read_status(p, e)) return Outcome::EVENT;
      break;
    default: break;
  }
  n = 0;
  return Outcome::NO_EVENT;
}

// A quote takes the place of the one before, on both sides; one that changes nothing still is an event.
void IexDecoder::quote(const std::uint8_t* p, Event* out, std::size_t& n, Known& known) const noexcept {
  namespace q = iex::quote_update;
  const std::int64_t px[2] = {signed_le(p + q::bid_price_at), signed_le(p + q::ask_price_at)};
  const std::int64_t qty[2] = {size_of(p + q::bid_size_at), size_of(p + q::ask_size_at)};
  constexpr std::int8_t SIDES[2] = {side::BID, side::ASK};
  n = 0;
  for (std::size_t s = 0; s < 2; ++s) {
    if (known.held[s] && (qty[s] == 0 || known.px[s] != px[s])) {
      out[n] = Event{};
      set_level(out[n++], SIDES[s], known.px[s], 0);
    }
    known.held[s] = qty[s] != 0;
    known.px[s] = px[s];
    if (qty[s] == 0) continue;
    known.booked = true;
    out[n] = Event{};
    set_level(out[n++], SIDES[s], px[s], qty[s]);
  }
  if (n == 0) out[n++] = Event{};
}

// ---- restarts ------------------------------------------------------------------------------------------------------

void IexDecoder::restart(const IexReader::Restart& at) {
  restart_ = at;
  to_clear_.clear();
  for (std::size_t i = known_.size(); i-- > 0;) {
    if (known_[i].booked) to_clear_.push_back(static_cast<std::uint32_t>(i));
    known_[i] = Known{};
  }
}

bool IexDecoder::clear(Event& out) noexcept {
  if (to_clear_.empty()) return false;
  out = Event{};
  set(out, Action::CLEAR, flag::LAST);
  out.ts_event = restart_.ts_event;
  out.ts_recv = restart_.ts_recv == 0 ? NULL_TS : restart_.ts_recv;
  out.seq = restart_.seq;
  out.instrument = to_clear_.back();
  out.feed = static_cast<std::uint8_t>(FeedId::IEX);
  to_clear_.pop_back();
  ++synthetic;
  return true;
}

Pulled pull_iex(Captures& captures, IexReader& reader, IexDecoder& decoder, Event* out, std::size_t room,
                std::uint64_t max_messages) {
  IexReader::Restart at;
  if (reader.take_restart(at)) decoder.restart(at);
  std::size_t cleared = 0;
  while (cleared < room && decoder.clear(out[cleared])) ++cleared;
  if (decoder.clearing()) return Pulled{cleared, true};
  Pulled done = pull(captures, reader, out + cleared, room - cleared, IexDecoder::MAX_EVENTS, max_messages,
                     [&](const Block& block, Event* to) {
                       std::size_t n = 0;
                       (void)decoder.message(block, to, n);
                       return n;
                     });
  done.events += cleared;
  return done;
}

}  // namespace microrisk
