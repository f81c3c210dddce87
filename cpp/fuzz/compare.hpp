// The engine under test beside the naive one: the only file of this folder that knows how the engine is read.
#pragma once

#include <string>

#include "microrisk/engine.hpp"
#include "naive_book.hpp"

namespace fuzz {

using microrisk::Engine;
using microrisk::Instrument;

// A scoring stage that only mixes what it is shown, and counts the calls for each instrument.
inline std::uint64_t mix(const View& v, std::uint64_t step) {
  std::uint64_t words[sizeof(View) / 8], h = step * 0x9E3779B97F4A7C15ULL;
  std::memcpy(words, &v, sizeof(words));
  for (const std::uint64_t w : words) h = (h ^ w) * 0xD6E8FEB86659FD93ULL, h ^= h >> 29;
  return h;
}
inline std::int32_t mixing_kernel(const View* v, void* state, const std::int8_t*, std::int8_t* codes) {
  std::uint64_t step = 0;
  std::memcpy(&step, state, sizeof(step));
  const std::uint64_t h = mix(*v, step++);
  std::memcpy(state, &step, sizeof(step));
  std::memcpy(codes, &h, sizeof(h));
  return (h >> 8 & 3) != 0;
}

// Counts its calls too, and shows the count.
inline void mixing_alert(const std::int32_t*, const void* params, void* state, std::int32_t* level,
                         std::uint8_t* alert_fresh) {
  std::uint64_t calls = 0;
  std::memcpy(&calls, state, sizeof(calls));
  level[0] = static_cast<std::int32_t>(++calls), level[3] = *static_cast<const std::uint8_t*>(params);
  std::memcpy(state, &calls, sizeof(calls));
  alert_fresh[0] = static_cast<std::uint8_t>(calls), alert_fresh[1] = 1;
}

struct Setup {
  NaiveOptions options;
  std::size_t reserve_orders = 8, reserve_instruments = 2;
  bool latency = false, deeds = false, samples = false;

  // Eight bits of sinks, and the depth of the image.
  static Setup from(std::uint8_t bits, std::uint8_t more) {
    Setup s;
    s.options.always_open = (bits & 1) != 0;
    s.options.views = (bits & 2) != 0;
    s.options.every_ns = (bits & 4) != 0 ? microrisk::TICK_NS / 5 : 0;
    s.options.ticks = (bits & 8) != 0;
    s.options.rows = (bits & 16) != 0;
    s.options.bbo = (bits & 32) == 0;
    s.options.depth = (bits & 64) != 0 ? 1U + more % 13U : 0;
    s.reserve_orders = (bits & 128) != 0 ? 3000 : 8;
    s.latency = more == 0xA5;  // reading the clock takes 5 ms to set up
    s.options.prints = (more & 128) != 0;
    s.deeds = (more & 64) != 0;
    s.samples = (more & 32) != 0 && s.options.depth == 0;
    return s;
  }
};

class Pair {
 public:
  explicit Pair(const Setup& setup)
      : engine(setup.options.always_open, setup.reserve_orders, setup.reserve_instruments),
        naive(setup.options),
        sampled_(setup.samples) {
    const NaiveOptions& o = setup.options;
    if (o.bbo) engine.record_bbo();
    if (o.views) engine.record_views(o.every_ns);
    if (o.prints) engine.record_prints();
    if (setup.deeds) engine.record_deeds();
    if (setup.samples) engine.record_samples(3, microrisk::TICK_NS);
    if (o.depth > 0) engine.record_depth(o.depth);
    if (o.rows) {
      microrisk::Watch stage;
      stage.kernel = mixing_kernel;
      stage.state.assign(8, 0);
      stage.alert = mixing_alert;
      stage.alert_params.assign(8, 3);
      stage.alert_state.assign(8, 0);
      engine.watch(std::move(stage));
    }
    engine.ticks(o.ticks);
    engine.latency(setup.latency);
  }

  Engine engine;
  NaiveEngine naive;

  // Cheap: counters and what was recorded since the last time.
  void compare_news() {
    equal("n_events", engine.n_events, naive.n_events);
    equal("now", engine.now, naive.now);
    equal("live orders", engine.store().live_orders(), naive.live_orders());
    same_counts(engine.integrity, naive.integrity, "the feed");
    findings_.compare("finding", engine.findings, naive.findings);
    bbo_.compare("BBO row", engine.bbo, naive.bbo);
    prints_.compare("print", engine.prints, naive.prints);
    if (!sampled_) depth_rows_.compare("depth row", engine.depth_rows, naive.depth_rows);
    if (!sampled_) depth_levels_.compare("depth level", engine.depth_levels, naive.depth_levels);
    views_.compare("view", engine.views, naive.views);
    compare_rows();
  }

  // Every book: orders in their queues, levels, counters, marks, and the way back from an id to its place.
  void compare_books() {
    for (const Instrument* in : engine.instruments()) {
      if (!naive.books.contains(in->book.instrument)) fail("instrument %u is not there", in->book.instrument);
    }
    equal("instruments", engine.instruments().size(), naive.books.size());
    for (const auto& [index, book] : naive.books) {
      const Instrument* in = engine.find(index);
      if (in == nullptr) fail("instrument %u has no book", index);
      equal("had an event", in->has_book, book.had_event);
      equal("suspect", in->suspect, book.suspect);
      same_counts(in->integrity, book.integrity, "an instrument");
      compare_orders(*in, naive.orders(index));
      compare_levels(*in, book);
    }
  }

  // Often enough to catch an error where it happens, without going through a large book at each event.
  void compare() {
    compare_news();
    since_ += 16;
    if (since_ < naive.live_orders()) return;
    since_ = 0;
    compare_books();
  }

  void finish() {
    engine.finish();
    naive.finish();
    compare_news();
    compare_books();
  }

 private:
  // How much of a record has been compared already.
  class Records {
   public:
    template <class Ours, class T>
    void compare(const char* what, const Ours& ours, const std::vector<T>& theirs) {
      const std::size_t n = std::min(ours.size(), theirs.size());
      for (; at_ < n; ++at_) {
        if (std::memcmp(&ours[at_], &theirs[at_], sizeof(T)) != 0) describe(what, ours[at_], theirs[at_]);
      }
      if (ours.size() != theirs.size()) fail("%s: %zu of them, naive %zu", what, ours.size(), theirs.size());
    }

   private:
    template <class T>
    [[noreturn]] void describe(const char* what, const T& ours, const T& theirs) const {
      std::string text;
      const auto* a = reinterpret_cast<const std::uint8_t*>(&ours);
      const auto* b = reinterpret_cast<const std::uint8_t*>(&theirs);
      for (std::size_t i = 0; i + 8 <= sizeof(T); i += 8) {
        std::int64_t x = 0, y = 0;
        std::memcpy(&x, a + i, 8), std::memcpy(&y, b + i, 8);
        if (x != y) text += " [" + std::to_string(i) + "] " + std::to_string(x) + " / " + std::to_string(y);
      }
      fail("%s %zu, words that differ (ours / naive):%s", what, at_, text.c_str());
    }
    std::size_t at_ = 0;
  };

  using Counts = std::array<std::uint64_t, microrisk::N_INTEGRITY>;
  static void same_counts(const Counts& ours, const Counts& theirs, const char* of) {
    for (std::size_t k = 0; k < ours.size(); ++k) {
      if (ours[k] != theirs[k]) {
        fail("%s of %s: %llu, naive %llu", microrisk::INTEGRITY_NAMES[k], of, static_cast<unsigned long long>(ours[k]),
             static_cast<unsigned long long>(theirs[k]));
      }
    }
  }

  void compare_rows() {
    for (; scored_ < naive.scored.size(); ++scored_) {
      const View& v = naive.scored[scored_];
      const std::uint64_t h = mix(v, naive.steps[scored_]);
      if ((h >> 8 & 3) == 0) continue;
      if (row_ == engine.rows.size()) fail("row %zu is missing", row_);
      const microrisk::Row& row = engine.rows[row_++];
      std::uint64_t codes = 0;
      std::memcpy(&codes, row.codes, 8);
      if (codes != h)
        fail("the view of row %zu differs (event %llu)", row_ - 1, static_cast<unsigned long long>(v.seq));
      equal("row.now", row.now, v.now);
      equal("row.seq", row.seq, v.seq);
      equal("row.instrument", row.instrument, v.instrument);
      equal("row.tick", row.tick, v.tick);
      equal("row.suspect", row.suspect, v.suspect);
      equal("row.level", row.level[0], ++alerts_[v.instrument]);
      equal("row.level of the parameters", row.level[3], 3);
      equal("row.alert", row.alert, static_cast<std::uint8_t>(row.level[0]));
    }
    equal("rows", engine.rows.size(), row_);
  }

  void append_side(const Instrument& in, bool ask, std::vector<RestingOrder>& out) const {
    using microrisk::NO_HANDLE;
    const auto& ladder = in.book.side[ask];
    const auto& store = engine.store();
    RestingOrder row{};
    row.instrument = in.book.instrument, row.side = ask ? side::ASK : side::BID;
    for (std::size_t i = 0; i < ladder.size(); ++i) {
      const auto& level = store.level(ladder.best(i).level);
      row.px = microrisk::to_px(ask, level.key), row.priority = 0;
      if (level.orders == 0) {
        row.order_id = 0, row.qty = level.qty;
        out.push_back(row);
        continue;
      }
      auto before = NO_HANDLE;
      for (auto o = level.head; o != NO_HANDLE; before = o, o = store.order(o).next, ++row.priority) {
        row.order_id = store.order(o).id, row.qty = store.order(o).qty;
        out.push_back(row);
        if (store.order(o).prev != before) fail("the queue of order %llu is torn", ull(row.order_id));
        if (store.find(row.instrument, row.order_id) != o) fail("order %llu is not found by its id", ull(row.order_id));
      }
      equal("orders of a level", std::uint64_t{level.orders}, row.priority);
    }
  }

  void compare_orders(const Instrument& in, const std::vector<RestingOrder>& naive_orders) const {
    std::vector<RestingOrder> ours;
    append_side(in, false, ours);
    append_side(in, true, ours);
    const std::size_t n = std::min(ours.size(), naive_orders.size());
    for (std::size_t i = 0; i < n; ++i) {
      const RestingOrder &a = ours[i], &b = naive_orders[i];
      if (std::memcmp(&a, &b, sizeof(a)) != 0) {
        fail("instrument %u, order %zu: id %llu px %lld qty %lld place %llu, naive id %llu px %lld qty %lld place %llu",
             in.book.instrument, i, ull(a.order_id), ll(a.px), ll(a.qty), ull(a.priority), ull(b.order_id), ll(b.px),
             ll(b.qty), ull(b.priority));
      }
    }
    equal("resting orders", ours.size(), naive_orders.size());
  }

  // The engine's own sums, as levels() hands them out.
  void compare_levels(const Instrument& in, const NaiveBook& book) const {
    const std::size_t depth = std::max(book.bids.size(), book.asks.size()) + 1;
    std::vector<std::int64_t> ours(4 * depth);
    engine.levels(in, depth, ours.data());
    std::size_t at = 0;
    for (const int s : {side::BID, side::ASK}) {
      book.walk(s, [&](std::int64_t px, const Rank& rank) {
        equal("price of a level", ours[at], px);
        equal("quantity of a level", ours[at + 1], rank.total());
        at += 2;
        return true;
      });
      for (const std::size_t end = s == side::BID ? 2 * depth : 4 * depth; at < end; at += 2) {
        equal("price beyond the last level", ours[at], microrisk::NULL_PX);
      }
    }
  }

  static unsigned long long ull(std::uint64_t x) { return x; }
  static long long ll(std::int64_t x) { return x; }

  Records findings_, bbo_, depth_rows_, depth_levels_, views_, prints_;
  std::map<std::uint32_t, std::int32_t> alerts_;
  bool sampled_;  // sampled images have their twin in the Python tests; here they only run
  std::size_t scored_ = 0, row_ = 0, since_ = 0;
};

}  // namespace fuzz
