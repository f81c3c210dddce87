// A second ITCH 5.0 decoder, to compare with: one message at a time, fields cut off one after another.
//
// It shares no table and no line with cpp/src. The sizes below were typed in from Nasdaq TotalView-ITCH 5.0, sections
// 1.1 to 1.8; the rules are the sentences at the head of microrisk/feed/reference.py and microrisk/feed/itch.py.
#pragma once

#include <array>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "input.hpp"
#include "microrisk/spec.hpp"

namespace fuzz {

using microrisk::Event;

// Field sizes of a type in wire order: type, locate, tracking, time, then its own.
inline const std::vector<std::size_t>* itch_sizes(std::uint8_t type) {
  static const std::map<std::uint8_t, std::vector<std::size_t>> table{
      {'S', {1, 2, 2, 6, 1}},                                         // event
      {'R', {1, 2, 2, 6, 8, 1, 1, 4, 1, 1, 2, 1, 1, 1, 1, 1, 4, 1}},  // stock directory
      {'H', {1, 2, 2, 6, 8, 1, 1, 4}},                                // stock, state, reserved, reason
      {'Y', {1, 2, 2, 6, 8, 1}},                                      // stock, action
      {'L', {1, 2, 2, 6, 4, 8, 1, 1, 1}},                             // mpid, stock, primary, mode, state
      {'V', {1, 2, 2, 6, 8, 8, 8}},                                   // three levels
      {'W', {1, 2, 2, 6, 1}},                                         // level breached
      {'K', {1, 2, 2, 6, 8, 4, 1, 4}},                                // stock, time, qualifier, price
      {'J', {1, 2, 2, 6, 8, 4, 4, 4, 4}},                             // stock, reference, upper, lower, extension
      {'h', {1, 2, 2, 6, 8, 1, 1}},                                   // stock, market, action
      {'A', {1, 2, 2, 6, 8, 1, 4, 8, 4}},                             // ref, side, shares, stock, price
      {'F', {1, 2, 2, 6, 8, 1, 4, 8, 4, 4}},                          // and attribution
      {'E', {1, 2, 2, 6, 8, 4, 8}},                                   // ref, shares, match
      {'C', {1, 2, 2, 6, 8, 4, 8, 1, 4}},                             // and printable, price
      {'X', {1, 2, 2, 6, 8, 4}},                                      // ref, shares
      {'D', {1, 2, 2, 6, 8}},                                         // ref
      {'U', {1, 2, 2, 6, 8, 8, 4, 4}},                                // ref, new ref, shares, price
      {'P', {1, 2, 2, 6, 8, 1, 4, 8, 4, 8}},                          // ref, side, shares, stock, price, match
      {'Q', {1, 2, 2, 6, 8, 8, 4, 8, 1}},                             // shares, stock, price, match, cross type
      {'B', {1, 2, 2, 6, 8}},                                         // match
      {'I', {1, 2, 2, 6, 8, 8, 1, 8, 4, 4, 4, 1, 1}},                 // imbalance
      {'N', {1, 2, 2, 6, 8, 1}},                                      // stock, interest
      {'O', {1, 2, 2, 6, 8, 1, 4, 4, 4, 8, 4, 4}},                    // direct listing
  };
  const auto found = table.find(type);
  return found == table.end() ? nullptr : &found->second;
}

inline std::size_t itch_length(std::uint8_t type) {
  std::size_t sum = 0;
  if (const auto* sizes = itch_sizes(type)) {
    for (const std::size_t n : *sizes) sum += n;
  }
  return sum;
}

// One framed message and where it ends in the stream.
struct Framed {
  Bytes bytes;
  std::size_t end;
};

// A whole stream cut into messages. `rest`: where the first message begins that is not there in full.
struct Frames {
  std::vector<Framed> messages;
  std::size_t rest = 0;
  std::uint64_t trailing = 0;
  bool ended = false;
};

// Rules: the two-byte length rules, also over types; zero (or any length of a loose writer) before a known type means
// the type's own length; zero before anything else, or at the very end, is the end mark, and what follows trails.
inline Frames itch_frames(const Bytes& wire, bool loose) {
  Frames out;
  while (wire.size() - out.rest >= 2) {
    const std::size_t start = out.rest + 2;
    std::size_t length = static_cast<std::size_t>(wire[out.rest] << 8 | wire[out.rest + 1]);
    if (length == 0 || loose) {
      const std::size_t own = start < wire.size() ? itch_length(wire[start]) : 0;
      if (own > 0) length = own;
      if (length == 0) {
        out.ended = true;
        out.trailing = wire.size() - start;
        out.rest = wire.size();
        return out;
      }
    }
    if (wire.size() - start < length) return out;
    out.rest = start + length;
    const auto at = wire.begin() + static_cast<std::ptrdiff_t>(start);
    out.messages.push_back(Framed{Bytes(at, at + static_cast<std::ptrdiff_t>(length)), out.rest});
  }
  return out;
}

// What one message means.
struct Meaning {
  enum class Kind { EVENT, NO_EVENT, MALFORMED, UNKNOWN_TYPE } kind;
  Event event;
};

class NaiveItch {
 public:
  explicit NaiveItch(std::int64_t midnight) : midnight_(midnight) {}

  Meaning read(const Bytes& m, std::uint64_t seq, std::int64_t ts_recv) {
    ++messages;
    const Meaning out = m.empty() ? Meaning{Meaning::Kind::UNKNOWN_TYPE, {}} : known(m, seq, ts_recv);
    malformed += out.kind == Meaning::Kind::MALFORMED;
    unknown_type += out.kind == Meaning::Kind::UNKNOWN_TYPE;
    return out;
  }

  std::uint64_t messages = 0, malformed = 0, unknown_type = 0;
  std::int64_t first_ts = microrisk::NULL_TS, last_ts = microrisk::NULL_TS;
  std::map<std::uint8_t, std::uint64_t> counts;
  std::map<std::uint32_t, std::string> symbols;

 private:
  struct Fields {
    std::vector<std::uint64_t> number;  // big-endian; of a field longer than 8 bytes the last 8
    std::vector<std::string> text;
  };

  static Fields cut(const Bytes& m, const std::vector<std::size_t>& sizes) {
    Fields f;
    std::size_t at = 0;
    for (const std::size_t n : sizes) {
      std::uint64_t value = 0;
      std::string text;
      for (std::size_t i = 0; i < n; ++i, ++at) {
        value = value * 256 + m[at];
        text.push_back(static_cast<char>(m[at]));
      }
      f.number.push_back(value);
      f.text.push_back(text);
    }
    return f;
  }

  Meaning known(const Bytes& m, std::uint64_t seq, std::int64_t ts_recv) {
    const auto* sizes = itch_sizes(m[0]);
    if (sizes == nullptr) return {Meaning::Kind::UNKNOWN_TYPE, {}};
    if (m.size() != itch_length(m[0])) return {Meaning::Kind::MALFORMED, {}};
    const Fields f = cut(m, *sizes);
    const bool sided = m[0] == 'A' || m[0] == 'F' || m[0] == 'P';
    if (sided && f.text[5] != "B" && f.text[5] != "S") return {Meaning::Kind::MALFORMED, {}};
    if (m[0] == 'Q' && f.number[4] > static_cast<std::uint64_t>(INT64_MAX)) return {Meaning::Kind::MALFORMED, {}};
    ++counts[m[0]];
    last_ts = midnight_ + static_cast<std::int64_t>(f.number[3]);
    if (first_ts == microrisk::NULL_TS) first_ts = last_ts;
    const auto locate = static_cast<std::uint32_t>(f.number[1]);
    if (m[0] == 'R') symbols[locate] = f.text[4];
    if (sided && !named(locate)) symbols[locate] = f.text[7];
    std::optional<Event> e = event_of(m[0], f);
    if (!e) return {Meaning::Kind::NO_EVENT, {}};
    e->ts_event = last_ts, e->ts_recv = ts_recv, e->seq = seq, e->feed = 1;
    e->flags = static_cast<std::uint8_t>(e->flags | microrisk::flag::LAST);
    return {Meaning::Kind::EVENT, *e};
  }

  bool named(std::uint32_t locate) const {
    const auto found = symbols.find(locate);
    return found != symbols.end() && found->second != std::string(8, '\0');
  }

  static std::int64_t whole(std::uint64_t x) { return static_cast<std::int64_t>(x); }

  static std::optional<Event> event_of(std::uint8_t type, const Fields& f) {
    using microrisk::Action;
    namespace flag = microrisk::flag;
    Event e{};
    e.instrument = static_cast<std::uint32_t>(f.number[1]);
    const auto is = [&e](Action action, unsigned flags) {
      e.action = static_cast<std::uint8_t>(action);
      e.flags = static_cast<std::uint8_t>(flags);
    };
    const std::vector<std::uint64_t>& n = f.number;
    switch (type) {
      case 'A':
      case 'F':
      case 'P':
        is(type == 'P' ? Action::TRADE : Action::ADD, type == 'P' ? flag::HIDDEN : 0U);
        e.order_id = n[4], e.side = f.text[5] == "B" ? 1 : -1, e.qty = whole(n[6]), e.px = whole(n[8]);
        if (type == 'P') e.ref = n[9];
        return e;
      case 'E':
      case 'C':
        is(Action::REDUCE, type == 'C' && f.text[7] == "N" ? 0U | flag::EXEC | flag::NO_PRINT : 0U | flag::EXEC);
        e.order_id = n[4], e.qty = whole(n[5]), e.ref = n[6];
        if (type == 'C') e.px = whole(n[8]);
        return e;
      case 'X':
        is(Action::REDUCE, 0);
        e.order_id = n[4], e.qty = whole(n[5]);
        return e;
      case 'D':
        is(Action::DELETE, 0);
        e.order_id = n[4];
        return e;
      case 'U':
        is(Action::REPLACE, 0);
        e.order_id = n[4], e.ref = n[5], e.qty = whole(n[6]), e.px = whole(n[7]);
        return e;
      case 'Q':
        is(Action::TRADE, flag::CROSS);
        e.qty = whole(n[4]), e.px = whole(n[6]), e.ref = n[7];
        return e;
      case 'H':
      case 'S': return state_of(type, f.text[type == 'H' ? 5 : 4][0], e);
      default: return std::nullopt;
    }
  }

  // H names the state of a stock, S of the whole market; other codes say nothing about trading.
  static std::optional<Event> state_of(std::uint8_t type, char code, Event e) {
    static const std::map<std::string, std::uint64_t> states{{"HH", 3}, {"HP", 3}, {"HQ", 4},
                                                             {"HT", 2}, {"SQ", 2}, {"SM", 5}};
    const auto found = states.find(std::string{static_cast<char>(type), code});
    if (found == states.end()) return std::nullopt;
    e.action = static_cast<std::uint8_t>(microrisk::Action::STATE);
    e.ref = found->second;
    if (type == 'S') e.instrument = 0xFFFFFFFF;
    return e;
  }

  std::int64_t midnight_;
};

}  // namespace fuzz
