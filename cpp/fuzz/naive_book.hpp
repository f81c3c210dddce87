// A second book engine, to compare with: std::map and sums, written from the rules in microrisk/book/reference.py.
//
// Nothing is kept that could go stale: a level's quantity is added up each time it is asked for, a queue is a vector.
// It records what the engine records (findings, BBO, depth images, views, rows), so that all of it can be compared.
#pragma once

#include <algorithm>
#include <array>
#include <functional>
#include <map>
#include <vector>

#include "input.hpp"
#include "microrisk/sinks.hpp"
#include "microrisk/spec.hpp"

namespace fuzz {

using microrisk::Action;
using microrisk::Bbo;
using microrisk::Event;
using microrisk::Finding;
using microrisk::Integrity;
using microrisk::Print;
using microrisk::RestingOrder;
using microrisk::TradingState;
using microrisk::View;
namespace flag = microrisk::flag;
namespace side = microrisk::side;

inline constexpr std::int64_t MAX = INT64_MAX;
inline constexpr std::uint32_t EVERY_INSTRUMENT = 0xFFFFFFFF, INSTRUMENTS = 1U << 20;
inline constexpr std::size_t MOST_FINDINGS = 10'000;
// The engine's clock makes no ticks in the last half second that 64 bits can name.
inline constexpr std::int64_t LAST_TICK = MAX - 2 * microrisk::TICK_NS;

struct Resting {
  std::uint64_t id;
  std::int64_t qty;
};

// Either the orders of a price in their order, or one quantity that the venue gave.
struct Rank {
  std::vector<Resting> queue;
  std::int64_t flat = 0;

  std::int64_t total() const {
    std::int64_t sum = flat;
    for (const Resting& o : queue) sum += o.qty;
    return sum;
  }
};

struct NaiveBook {
  struct Place {
    int side;
    std::int64_t px;
  };
  struct Pending {
    std::int64_t add = 0, cancel = 0, trade = 0, px = 0;
    std::int8_t side = 0;
    bool posted = false;
  };

  std::map<std::int64_t, Rank> bids, asks;
  std::map<std::uint64_t, Place> places;
  std::array<std::uint64_t, microrisk::N_INTEGRITY> integrity{};
  TradingState state = TradingState::UNKNOWN;
  Pending pending;
  std::int64_t ts_event = microrisk::NULL_TS, ts_recv = microrisk::NULL_TS, next_view = INT64_MIN;
  std::uint64_t seq = 0, steps = 0;
  Bbo best{microrisk::NULL_TS, microrisk::NULL_TS, 0, microrisk::NULL_PX, 0, microrisk::NULL_PX, 0, 0, 0};
  std::vector<std::int64_t> image;
  unsigned ticks_left = 0;
  bool had_event = false, changed = false, in_snapshot = false, suspect = false;

  std::map<std::int64_t, Rank>& ladder(int s) { return s == side::BID ? bids : asks; }
  const std::map<std::int64_t, Rank>& ladder(int s) const { return s == side::BID ? bids : asks; }

  // Calls f(px, rank) best first until it says no.
  void walk(int s, const std::function<bool(std::int64_t, const Rank&)>& f) const {
    if (s == side::ASK) {
      for (auto it = asks.begin(); it != asks.end() && f(it->first, it->second); ++it) continue;
    } else {
      for (auto it = bids.rbegin(); it != bids.rend() && f(it->first, it->second); ++it) continue;
    }
  }
  Resting order(std::uint64_t id) const {
    const Place p = places.at(id);
    for (const Resting& o : ladder(p.side).at(p.px).queue) {
      if (o.id == id) return o;
    }
    fail("the naive book lost an order of its own");
  }
  // What a level can still take without leaving 63 bits; -1 where the venue gives the quantity.
  std::int64_t room(int s, std::int64_t px) const {
    const auto it = ladder(s).find(px);
    if (it == ladder(s).end()) return MAX;
    return it->second.flat != 0 ? -1 : MAX - it->second.total();
  }
  bool enter(int s, std::int64_t px, std::uint64_t id, std::int64_t qty) {
    if (qty > room(s, px)) return false;
    ladder(s)[px].queue.push_back(Resting{id, qty});
    places[id] = Place{s, px};
    return true;
  }
  void resize(std::uint64_t id, std::int64_t qty) {
    const Place p = places.at(id);
    for (Resting& o : ladder(p.side).at(p.px).queue) {
      if (o.id == id) o.qty = qty;
    }
  }
  void leave(std::uint64_t id) {
    const Place p = places.at(id);
    auto& queue = ladder(p.side).at(p.px).queue;
    std::erase_if(queue, [id](const Resting& o) { return o.id == id; });
    if (queue.empty()) ladder(p.side).erase(p.px);
    places.erase(id);
  }
  void empty() {
    bids.clear(), asks.clear(), places.clear();
    suspect = false;
  }
};

struct NaiveOptions {
  bool always_open = false, ticks = false, views = false, rows = false, bbo = true, prints = false;
  std::int64_t every_ns = 0;
  std::size_t depth = 0;
};

class NaiveEngine {
 public:
  explicit NaiveEngine(const NaiveOptions& options)
      : options_(options), first_state_(options.always_open ? TradingState::ALWAYS : TradingState::UNKNOWN) {}

  std::map<std::uint32_t, NaiveBook> books;
  std::array<std::uint64_t, microrisk::N_INTEGRITY> integrity{};
  std::vector<Finding> findings;
  std::vector<Bbo> bbo, depth_rows;
  std::vector<std::int64_t> depth_levels;
  std::vector<Print> prints;
  std::vector<View> views, scored;   // recorded ones; all that went to the scoring stage
  std::vector<std::uint64_t> steps;  // of each in `scored`: how many its instrument had before
  std::uint64_t n_events = 0;
  std::int64_t now = microrisk::NULL_TS;

  std::size_t live_orders() const {
    std::size_t n = 0;
    for (const auto& [index, book] : books) n += book.places.size();
    return n;
  }

  std::vector<RestingOrder> orders(std::uint32_t instrument) const {
    std::vector<RestingOrder> out;
    const NaiveBook& book = books.at(instrument);
    for (const int s : {side::BID, side::ASK}) {
      book.walk(s, [&](std::int64_t px, const Rank& rank) {
        std::uint64_t n = 0;
        for (const Resting& o : rank.queue) out.push_back(RestingOrder{o.id, px, o.qty, n++, instrument, s});
        if (rank.queue.empty()) out.push_back(RestingOrder{0, px, rank.flat, 0, instrument, s});
        return true;
      });
    }
    return out;
  }

  void apply(const Event& e) {
    advance(e.ts_recv == microrisk::NULL_TS ? e.ts_event : e.ts_recv);
    if (e.instrument >= INSTRUMENTS) return whole_market(e);
    NaiveBook& book = at(e.instrument);
    book.ts_event = e.ts_event, book.ts_recv = e.ts_recv, book.seq = e.seq;
    const bool image = (e.flags & flag::SNAPSHOT) != 0;
    if (image && !book.in_snapshot) book.suspect = false;
    book.in_snapshot = image;
    if ((e.flags & flag::SUSPECT) != 0) book.suspect = true;
    if (options_.prints) print(book, e);
    act(book, e);
    if ((e.flags & flag::LAST) != 0 && !image) complete(book, e);
  }

  // What a decoder found: on an instrument, or (a gap) on every one there is.
  void count(Integrity kind, std::uint64_t n, std::uint32_t instrument) {
    if (n == 0) return;
    NaiveBook* book = instrument < INSTRUMENTS ? &at(instrument) : nullptr;
    note(kind, n, book, Finding{now, 0, 0, 0, 0, instrument, static_cast<std::uint32_t>(kind)});
    if (book == nullptr && kind == Integrity::gap) {
      for (auto& [index, each] : books) each.suspect = true;
    }
  }

  // A damaged ITCH message: its locate, where it has one, may mark a book but makes none.
  void bad_message(Integrity kind, const Bytes& m, std::uint64_t seq) {
    const std::uint32_t locate = m.size() >= 3 ? static_cast<std::uint32_t>(m[1] << 8 | m[2]) : EVERY_INSTRUMENT;
    const auto found = books.find(locate);
    note(kind, 1, found == books.end() ? nullptr : &found->second,
         Finding{now, seq, 0, 0, 0, locate, static_cast<std::uint32_t>(kind)});
  }

  void reset_book(std::uint32_t instrument) {
    const auto it = books.find(instrument);
    if (it == books.end()) return;
    it->second.empty();
    it->second.ts_event = now, it->second.ts_recv = microrisk::NULL_TS, it->second.seq = 0;
  }

  void finish() {
    for (auto& [index, book] : books) {
      book.in_snapshot = false;
      record_best(index, book);
      record_depth(index, book);
    }
  }

 private:
  NaiveBook& at(std::uint32_t instrument) {
    const auto [it, fresh] = books.try_emplace(instrument);
    if (fresh) {
      it->second.state = first_state_;
      it->second.image = image_of(it->second);
    }
    return it->second;
  }

  void note(Integrity kind, std::uint64_t n, NaiveBook* book, const Finding& finding) {
    const auto k = static_cast<std::size_t>(kind);
    integrity[k] += n;
    if (findings.size() < MOST_FINDINGS) findings.push_back(finding);
    if (book == nullptr) return;
    book->integrity[k] += n;
    switch (kind) {
      case Integrity::malformed:
      case Integrity::gap:
      case Integrity::checksum_mismatch:
      case Integrity::over_execute:
      case Integrity::duplicate_order:
      case Integrity::crossed:
      case Integrity::unknown_order: book->suspect = true; break;
      default: break;
    }
  }
  void report(Integrity kind, NaiveBook* book, const Event& e) {
    note(kind, 1, book,
         Finding{e.ts_event, e.seq, e.order_id, e.px, e.qty, e.instrument, static_cast<std::uint32_t>(kind)});
  }

  // What an event prints: its volume in a trade, the part of it that was there in an execution.
  void print(const NaiveBook& book, const Event& e) {
    const auto place = book.places.find(e.order_id);
    const bool held = e.order_id != 0 && place != book.places.end(), trade = e.action == 7;
    const bool execution = e.action == 3 && (e.flags & flag::EXEC) != 0 && held;
    if ((e.flags & (flag::NO_PRINT | flag::SNAPSHOT)) != 0 || e.qty <= 0 || (!trade && !execution)) return;
    Print p{};
    p.ts_event = e.ts_event, p.ts_recv = e.ts_recv, p.seq = e.seq;
    p.qty = trade ? e.qty : std::min(e.qty, book.order(e.order_id).qty);
    p.px = trade || e.px != 0 ? e.px : place->second.px;
    p.order_id = e.order_id, p.ref = e.ref, p.instrument = e.instrument, p.flags = e.flags;
    p.side = trade ? e.side : static_cast<std::int8_t>(place->second.side);
    prints.push_back(p);
  }

  // ---- time --------------------------------------------------------------------------------------------------------

  void advance(std::int64_t to) {
    if (to <= now) return;
    if (options_.ticks && now != microrisk::NULL_TS) {
      using Wide = __int128;
      constexpr Wide step = microrisk::TICK_NS;
      const Wide floor = now >= 0 ? now / step : -((-Wide{now} + step - 1) / step);
      for (Wide point = (floor + 1) * step; point <= std::min(to, LAST_TICK) && anyone_ticks(); point += step) {
        tick(static_cast<std::int64_t>(point));
      }
    }
    now = to;
  }
  bool anyone_ticks() const {
    return std::any_of(books.begin(), books.end(), [](const auto& b) { return b.second.ticks_left > 0; });
  }
  void tick(std::int64_t point) {
    for (auto& [index, book] : books) {
      if (book.ticks_left == 0) continue;
      --book.ticks_left;
      record_view(index, book, point, NaiveBook::Pending{}, 0, 0, 1);
    }
  }

  void whole_market(const Event& e) {
    const bool known = e.ref <= 6 && e.action == 8 && e.instrument == EVERY_INSTRUMENT;
    if (!known) return report(Integrity::malformed, nullptr, e);
    if (first_state_ == TradingState::ALWAYS) return;
    first_state_ = static_cast<TradingState>(e.ref);
    for (auto& [index, book] : books) {
      const bool held = book.state == TradingState::HALTED || book.state == TradingState::AUCTION;
      if (!(held && first_state_ == TradingState::TRADING)) book.state = first_state_;
    }
  }

  // ---- actions -----------------------------------------------------------------------------------------------------

  void act(NaiveBook& book, const Event& e) {
    switch (e.action) {
      case 0: return;
      case 1: return add(book, e);
      case 2: return modify(book, e);
      case 3: return reduce(book, e);
      case 4: return remove(book, e);
      case 5: return replace(book, e);
      case 6: book.empty(); return applied(book, e);
      case 7:
        traded(book, e);
        if ((e.flags & flag::NO_PRINT) == 0) quantity(book, e, 't', e.side, e.px, e.qty);
        return;
      case 8:
        if (e.ref > 6) return report(Integrity::malformed, &book, e);
        if (book.state != TradingState::ALWAYS) book.state = static_cast<TradingState>(e.ref);
        return;
      case 9:
        if (!book.places.contains(e.order_id)) report(Integrity::unknown_fill, &book, e);
        return;
      default: report(Integrity::malformed, &book, e);
    }
  }

  void applied(NaiveBook& book, const Event& e) {
    ++n_events;
    book.had_event = true;
    if ((e.flags & flag::SNAPSHOT) == 0) book.changed = true;
  }
  void traded(NaiveBook& book, const Event& e) const {
    const bool waits = book.state == TradingState::UNKNOWN || book.state == TradingState::PREOPEN;
    if (waits && (e.flags & flag::CROSS) == 0) book.state = TradingState::TRADING;
  }
  void quantity(NaiveBook& book, const Event& e, char kind, int s, std::int64_t px, std::int64_t qty) const {
    if ((e.flags & flag::SNAPSHOT) != 0 || qty <= 0 || !sees()) return;
    NaiveBook::Pending& p = book.pending;
    std::int64_t& sum = kind == 'a' ? p.add : kind == 'c' ? p.cancel : p.trade;
    sum = static_cast<std::int64_t>(static_cast<std::uint64_t>(sum) + static_cast<std::uint64_t>(qty));
    p.px = px, p.side = static_cast<std::int8_t>(s), p.posted = kind == 'a';
  }
  bool sees() const { return options_.views || options_.rows; }

  bool post(NaiveBook& book, const Event& e, int s, std::uint64_t id) {
    if (e.px == 0 && (e.flags & flag::SNAPSHOT) == 0) report(Integrity::zero_price, &book, e);
    if (!book.enter(s, e.px, id, e.qty)) {
      report(Integrity::malformed, &book, e);
      return false;
    }
    quantity(book, e, 'a', s, e.px, e.qty);
    return true;
  }

  void add(NaiveBook& book, const Event& e) {
    if (e.side != side::BID && e.side != side::ASK) return report(Integrity::malformed, &book, e);
    if (e.qty <= 0) return report(Integrity::zero_qty, &book, e);
    if (book.places.contains(e.order_id)) return report(Integrity::duplicate_order, &book, e);
    if (post(book, e, e.side, e.order_id)) applied(book, e);
  }

  void modify(NaiveBook& book, const Event& e) {
    if ((e.flags & flag::EXEC) != 0) traded(book, e);
    if (e.order_id == 0) return modify_level(book, e);
    if (!book.places.contains(e.order_id)) {
      report(Integrity::unknown_order, &book, e);
      if (e.qty != 0) add(book, e);
      return;
    }
    if (e.qty == 0) return remove(book, e);
    if (e.qty < 0) return report(Integrity::zero_qty, &book, e);
    modify_order(book, e);
  }

  void modify_order(NaiveBook& book, const Event& e) {
    const NaiveBook::Place old = book.places.at(e.order_id);
    const std::int64_t old_qty = book.order(e.order_id).qty;
    const int s = e.side == side::NONE ? old.side : e.side == side::ASK ? -1 : 1;
    if (s != old.side) report(Integrity::side_mismatch, &book, e);
    const bool stays = s == old.side && e.px == old.px;
    if (stays && (e.qty <= old_qty || (e.flags & flag::PRIORITY_KEPT) != 0)) {
      if (e.qty > old_qty && e.qty - old_qty > book.room(s, e.px)) return report(Integrity::malformed, &book, e);
      book.resize(e.order_id, e.qty);
    } else {
      if (!stays && e.px == 0 && (e.flags & flag::SNAPSHOT) == 0) report(Integrity::zero_price, &book, e);
      book.leave(e.order_id);
      if (!book.enter(s, e.px, e.order_id, e.qty)) report(Integrity::malformed, &book, e);
    }
    applied(book, e);
    if ((e.flags & flag::EXEC) != 0) return;
    if (stays) return difference(book, e, s, e.qty, old_qty);
    quantity(book, e, 'c', old.side, old.px, old_qty);
    quantity(book, e, 'a', s, e.px, e.qty);
  }

  void difference(NaiveBook& book, const Event& e, int s, std::int64_t after, std::int64_t before) const {
    if (after > before) quantity(book, e, 'a', s, e.px, after - before);
    if (after < before) quantity(book, e, 'c', s, e.px, before - after);
  }

  void modify_level(NaiveBook& book, const Event& e) {
    if (e.side != side::BID && e.side != side::ASK) return report(Integrity::malformed, &book, e);
    if (e.qty < 0) return report(Integrity::zero_qty, &book, e);
    auto& ladder = book.ladder(e.side);
    const auto it = ladder.find(e.px);
    if (it != ladder.end() && !it->second.queue.empty()) return report(Integrity::malformed, &book, e);
    const std::int64_t before = it == ladder.end() ? 0 : it->second.flat;
    if (e.qty == 0 && before == 0) return report(Integrity::unknown_level, &book, e);
    if (e.qty == 0) {
      ladder.erase(it);
    } else {
      ladder[e.px].flat = e.qty;
    }
    applied(book, e);
    if ((e.flags & flag::EXEC) == 0) difference(book, e, e.side, e.qty, before);
  }

  void reduce(NaiveBook& book, const Event& e) {
    const bool executed = (e.flags & flag::EXEC) != 0;
    if (executed) traded(book, e);
    if (!book.places.contains(e.order_id)) return report(Integrity::unknown_order, &book, e);
    if (e.qty <= 0) return report(Integrity::zero_qty, &book, e);
    const NaiveBook::Place place = book.places.at(e.order_id);
    const std::int64_t held = book.order(e.order_id).qty, gone = std::min(e.qty, held);
    if (e.qty > held) report(Integrity::over_execute, &book, e);
    if (gone == held) {
      book.leave(e.order_id);
    } else {
      book.resize(e.order_id, held - gone);
    }
    applied(book, e);
    if (!executed) return quantity(book, e, 'c', place.side, place.px, gone);
    if ((e.flags & flag::NO_PRINT) == 0) quantity(book, e, 't', place.side, e.px != 0 ? e.px : place.px, gone);
  }

  void remove(NaiveBook& book, const Event& e) {
    if ((e.flags & flag::EXEC) != 0) traded(book, e);
    if (!book.places.contains(e.order_id)) return report(Integrity::unknown_order, &book, e);
    const NaiveBook::Place place = book.places.at(e.order_id);
    const std::int64_t held = book.order(e.order_id).qty;
    book.leave(e.order_id);
    applied(book, e);
    if ((e.flags & flag::EXEC) == 0) quantity(book, e, 'c', place.side, place.px, held);
  }

  void replace(NaiveBook& book, const Event& e) {
    if (!book.places.contains(e.order_id)) return report(Integrity::unknown_order, &book, e);
    const NaiveBook::Place place = book.places.at(e.order_id);
    const std::int64_t held = book.order(e.order_id).qty;
    book.leave(e.order_id);
    applied(book, e);
    quantity(book, e, 'c', place.side, place.px, held);
    if (e.qty <= 0) return report(Integrity::zero_qty, &book, e);
    if (book.places.contains(e.ref)) return report(Integrity::duplicate_order, &book, e);
    (void)post(book, e, place.side, e.ref);
  }

  // ---- the end of an event -----------------------------------------------------------------------------------------

  void complete(NaiveBook& book, const Event& e) {
    if (book.changed) {
      book.changed = false;
      check_crossed(book, e);
    }
    record_best(e.instrument, book);
    record_depth(e.instrument, book);
    if (!sees()) return;
    const NaiveBook::Pending pending = book.pending;
    book.pending = NaiveBook::Pending{};
    book.ticks_left = options_.ticks ? microrisk::MAX_TICKS : 0;
    record_view(e.instrument, book, now, pending, e.action, e.flags, 0);
  }

  void check_crossed(NaiveBook& book, const Event& e) {
    if (book.bids.empty() || book.asks.empty()) return;
    const std::int64_t bid = book.bids.rbegin()->first, ask = book.asks.begin()->first;
    const bool open = book.state == TradingState::TRADING || book.state == TradingState::ALWAYS;
    if (bid > ask) report(open ? Integrity::crossed : Integrity::crossed_preopen, &book, e);
    if (bid == ask) report(open ? Integrity::locked : Integrity::locked_preopen, &book, e);
  }

  // `n` levels a side, (px, qty), NULL_PX and 0 beyond the last.
  static std::vector<std::int64_t> top(const NaiveBook& book, std::size_t n) {
    std::vector<std::int64_t> out;
    for (const int s : {side::BID, side::ASK}) {
      std::size_t have = 0;
      book.walk(s, [&](std::int64_t px, const Rank& rank) {
        if (have == n) return false;
        out.insert(out.end(), {px, rank.total()});
        ++have;
        return true;
      });
      for (; have < n; ++have) out.insert(out.end(), {microrisk::NULL_PX, 0});
    }
    return out;
  }
  std::vector<std::int64_t> image_of(const NaiveBook& book) const { return top(book, options_.depth); }

  static Bbo row_of(std::uint32_t index, const NaiveBook& book) {
    const auto best = top(book, 1);
    return Bbo{book.ts_event, book.ts_recv, book.seq, best[0], best[1], best[2], best[3], index, 0};
  }
  void record_best(std::uint32_t index, NaiveBook& book) {
    const Bbo row = row_of(index, book), &last = book.best;
    const bool same = row.bid_px == last.bid_px && row.bid_qty == last.bid_qty && row.ask_px == last.ask_px &&
                      row.ask_qty == last.ask_qty;
    if (same || !options_.bbo) return;
    book.best = row;
    bbo.push_back(row);
  }
  void record_depth(std::uint32_t index, NaiveBook& book) {
    if (options_.depth == 0) return;
    auto image = image_of(book);
    if (image == book.image) return;
    depth_rows.push_back(row_of(index, book));
    depth_levels.insert(depth_levels.end(), image.begin(), image.end());
    book.image = std::move(image);
  }

  void record_view(std::uint32_t index, NaiveBook& book, std::int64_t time, const NaiveBook::Pending& p,
                   std::uint8_t action, std::uint8_t flags, std::uint8_t is_tick) {
    View v;
    std::memset(&v, 0, sizeof(v));
    v.now = time, v.ts_event = book.ts_event, v.ts_recv = book.ts_recv, v.seq = book.seq;
    v.px = p.px, v.side = p.side, v.action = action, v.flags = flags;
    v.add_qty = p.add, v.cancel_qty = p.cancel, v.trade_qty = p.trade;
    v.instrument = index, v.tick = is_tick, v.suspect = book.suspect;
    const auto fill = [&book](int s, std::int64_t* px, std::int64_t* qty, std::uint8_t& n) {
      book.walk(s, [&](std::int64_t at, const Rank& rank) {
        if (n == microrisk::DEPTH) return false;
        px[n] = at, qty[n] = rank.total();
        ++n;
        return true;
      });
    };
    fill(side::BID, v.bid_px, v.bid_qty, v.n_bid);
    fill(side::ASK, v.ask_px, v.ask_qty, v.n_ask);
    v.level = 255;
    const std::int64_t* pxs = p.side == side::ASK ? v.ask_px : v.bid_px;
    const std::uint8_t n = p.side == side::ASK ? v.n_ask : v.n_bid;
    for (std::uint8_t i = 0; p.posted && i < n; ++i) {
      if (pxs[i] == p.px) v.level = i;
    }
    keep(book, v);
  }

  void keep(NaiveBook& book, const View& v) {
    if (options_.views && v.now >= book.next_view) {
      views.push_back(v);
      if (options_.every_ns > 0) book.next_view = v.now > MAX - options_.every_ns ? MAX : v.now + options_.every_ns;
    }
    if (!options_.rows) return;
    scored.push_back(v);
    steps.push_back(book.steps++);
  }

  NaiveOptions options_;
  TradingState first_state_;
};

}  // namespace fuzz
