// A second decoder of IEX messages (TOPS 1.6, DEEP 1.0, DEEP+ 1.0), to compare with.
//
// Field sizes typed in from the three specifications; the rules are the numbered sentences of microrisk/feed/iex.py.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "microrisk/spec.hpp"
#include "naive_packets.hpp"

namespace fuzz {

inline constexpr std::uint64_t TOPS = 0x8003, DEEP = 0x8004, DEEP_PLUS = 0x8005;

// Sizes of type, one byte of its own, time, symbol, and the rest; nullptr for a type that the protocol has not.
inline const std::vector<std::size_t>* iex_sizes(std::uint64_t protocol, std::uint8_t type) {
  using Sizes = std::map<std::uint8_t, std::vector<std::size_t>>;
  static const Sizes all{
      {'S', {1, 1, 8}},    {'D', {1, 1, 8, 8, 4, 8, 1}}, {'H', {1, 1, 8, 8, 4}},       {'I', {1, 1, 8, 8}},
      {'O', {1, 1, 8, 8}}, {'P', {1, 1, 8, 8, 1}},       {'T', {1, 1, 8, 8, 4, 8, 8}}, {'B', {1, 1, 8, 8, 4, 8, 8}}};
  static const Sizes tops{{'Q', {1, 1, 8, 8, 4, 8, 8, 4}}};
  static const Sizes deep{{'8', {1, 1, 8, 8, 4, 8}}, {'5', {1, 1, 8, 8, 4, 8}}};
  static const Sizes plus{{'a', {1, 1, 8, 8, 8, 4, 8}},
                          {'M', {1, 1, 8, 8, 8, 4, 8}},
                          {'R', {1, 1, 8, 8, 8}},
                          {'L', {1, 1, 8, 8, 8, 4, 8, 8}},
                          {'C', {1, 1, 8, 8}}};
  static const Sizes old{{'X', {1, 1, 8, 8, 8}}, {'A', {1, 1, 8, 8, 4, 8, 8, 4, 1, 1, 4, 8, 8, 8, 8}}};
  static const Sizes levels{{'E', {1, 1, 8, 8}}};
  std::vector<const Sizes*> tables{&all, protocol == TOPS ? &tops : protocol == DEEP ? &deep : &plus};
  if (protocol != DEEP_PLUS) tables.push_back(&old);
  if (protocol != TOPS) tables.push_back(&levels);
  for (const Sizes* table : tables) {
    if (const auto found = table->find(type); found != table->end()) return &found->second;
  }
  return nullptr;
}

class NaiveIex {
 public:
  explicit NaiveIex(std::uint64_t protocol) : protocol_(protocol) {}

  std::uint64_t messages = 0, malformed = 0, unknown_type = 0, synthetic = 0;
  std::int64_t first_ts = microrisk::NULL_TS, last_ts = microrisk::NULL_TS;
  std::map<std::uint8_t, std::uint64_t> counts;
  std::vector<std::string> symbols;
  std::vector<microrisk::Event> events;

  // Rule 3: every book that had an event is cleared.
  void restart(std::int64_t sent, std::int64_t ts, std::uint64_t seq) {
    for (std::size_t i = 0; i < symbols.size(); ++i) {
      if (had_event_[symbols[i]]) {
        microrisk::Event e = event(6);
        e.ts_event = sent, e.ts_recv = ts == 0 ? microrisk::NULL_TS : ts, e.seq = seq;
        e.instrument = static_cast<std::uint32_t>(i), e.feed = 9, e.flags = 1;
        events.push_back(e);
        ++synthetic;
      }
    }
    had_event_.clear(), quotes_.clear(), in_transition_.clear();
  }

  void read(const NaiveBlock& block) {
    ++messages;
    const Bytes& m = block.bytes;
    const auto* sizes = m.empty() ? nullptr : iex_sizes(protocol_, m[0]);
    std::size_t least = 0;
    for (std::size_t i = 0; sizes != nullptr && i < sizes->size(); ++i) least += (*sizes)[i];
    if (sizes == nullptr) {
      ++unknown_type;
      return;
    }
    std::vector<microrisk::Event> made;
    std::uint32_t index = 0;
    if (m.size() < least || (m[0] != 'S' && !understand(m, *sizes, made, index))) {
      ++malformed;
      return;
    }
    ++counts[m[0]];
    last_ts = static_cast<std::int64_t>(number(m, 2, 8, false));
    if (first_ts == microrisk::NULL_TS) first_ts = last_ts;
    for (std::size_t i = 0; i < made.size(); ++i) {
      microrisk::Event& e = made[i];
      e.ts_event = last_ts, e.ts_recv = block.ts == 0 ? microrisk::NULL_TS : block.ts;
      e.seq = block.seq, e.instrument = index, e.feed = 9;
      if (i + 1 == made.size() && !in_transition_[symbols[index]]) e.flags |= 1;
      events.push_back(e);
    }
  }

 private:
  struct Quote {
    bool held = false;
    std::int64_t px = 0;
  };

  static microrisk::Event event(std::uint8_t action, unsigned flags = 0) {
    microrisk::Event e{};
    e.action = action, e.flags = static_cast<std::uint8_t>(flags);
    return e;
  }
  static microrisk::Event level(int side, std::int64_t px, std::int64_t qty) {
    microrisk::Event e = event(2);
    e.side = static_cast<std::int8_t>(side), e.px = px, e.qty = qty;
    return e;
  }

  // False: malformed. The symbol gets its number as soon as it is readable.
  bool understand(const Bytes& m, const std::vector<std::size_t>& sizes, std::vector<microrisk::Event>& made,
                  std::uint32_t& index) {
    std::vector<std::uint64_t> f;
    std::size_t at = 0;
    for (const std::size_t n : sizes) f.push_back(number(m, at, n, false)), at += n;
    const std::string symbol(m.begin() + 10, m.begin() + 18);
    for (const char c : symbol) {
      if (c < ' ' || c > '~') return false;
    }
    if (symbol[0] == ' ') return false;
    index = static_cast<std::uint32_t>(std::find(symbols.begin(), symbols.end(), symbol) - symbols.begin());
    if (index == symbols.size()) symbols.push_back(symbol);
    return act(m[0], f, symbol, made);
  }

  bool act(std::uint8_t type, const std::vector<std::uint64_t>& f, const std::string& symbol,
           std::vector<microrisk::Event>& made) {
    const auto px = [&f](std::size_t i) { return static_cast<std::int64_t>(f[i]); };
    const unsigned cross = (f[1] & 8) != 0 ? 128U : 0U;
    microrisk::Event e{};
    switch (type) {
      case '8':
      case '5':
        in_transition_[symbol] = f[1] % 2 == 0, had_event_[symbol] = true;
        e = level(type == '8' ? 1 : -1, px(5), px(4));
        break;
      case 'Q': return quote(f, symbol, made), true;
      case 'a':
        if (f[1] != '8' && f[1] != '5') return false;
        e = event(1), e.side = f[1] == '8' ? 1 : -1;
        e.order_id = f[4], e.qty = px(5), e.px = px(6), had_event_[symbol] = true;
        break;
      case 'M':
        e = f[1] % 2 == 1 ? event(2, 16) : event(5);
        e.order_id = f[4], e.qty = px(5), e.px = px(6), had_event_[symbol] = true;
        if (f[1] % 2 == 0) e.ref = f[4];
        break;
      case 'R': e = event(4), e.order_id = f[4]; break;
      case 'L': e = event(3, 32U | cross), e.order_id = f[4], e.qty = px(5), e.px = px(6), e.ref = f[7]; break;
      case 'C': e = event(6); break;
      case 'T':
        e = event(7, cross | (protocol_ == DEEP_PLUS ? 4U : 0U));
        e.qty = px(4), e.px = px(5), e.ref = f[6];
        break;
      case 'H': {
        static const std::map<std::uint64_t, std::uint64_t> states{{'H', 3}, {'P', 3}, {'O', 4}, {'T', 2}};
        const auto found = states.find(f[1]);
        if (found == states.end()) return true;
        e = event(8), e.ref = found->second;
        break;
      }
      default: return true;
    }
    made.push_back(e);
    return true;
  }

  // Rule 5: the old level of a side goes when its price does, or when the side is empty; then the new one is set.
  void quote(const std::vector<std::uint64_t>& f, const std::string& symbol, std::vector<microrisk::Event>& made) {
    for (const int side : {1, -1}) {
      Quote& was = quotes_[{symbol, side}];
      const auto px = static_cast<std::int64_t>(side == 1 ? f[5] : f[6]);
      const auto qty = static_cast<std::int64_t>(side == 1 ? f[4] : f[7]);
      if (was.held && (qty == 0 || px != was.px)) made.push_back(level(side, was.px, 0));
      if (qty != 0) made.push_back(level(side, px, qty)), had_event_[symbol] = true;
      was = Quote{qty != 0, px};
    }
    if (made.empty()) made.push_back(event(0));
  }

  std::uint64_t protocol_;
  std::map<std::string, bool> had_event_, in_transition_;
  std::map<std::pair<std::string, int>, Quote> quotes_;
};

}  // namespace fuzz
