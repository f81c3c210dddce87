// What a run writes down about its books: best prices, the first levels on change or sampled, prints and events.
#include <algorithm>

#include "event.hpp"
#include "microrisk/engine.hpp"

namespace microrisk {

namespace {

bool is_news(const Event& e) noexcept {
  return has(e, flag::LAST) && !has(e, flag::SNAPSHOT);
}

// What the book holds under the id (or, on L2, at the price) of an event.
struct Held {
  std::int8_t side = side::NONE;
  std::int64_t px = NULL_PX, qty = 0;
};

Held held_by(const BookStore& store, const Instrument& in, const Event& e) noexcept {
  if (e.order_id != 0) {
    const Handle h = store.find(e.instrument, e.order_id);
    if (h == NO_HANDLE) return {};
    const Level& level = store.level_of(h);
    const bool ask = level.ask();
    return {ask ? side::ASK : side::BID, to_px(ask, level.key), store.order(h).qty};
  }
  if (e.action != static_cast<std::uint8_t>(Action::MODIFY) || e.side == side::NONE) return {};
  const bool ask = e.side == side::ASK;
  const Ladder& ladder = in.book.side[ask];
  const std::int64_t key = to_key(ask, e.px);
  const std::size_t at = ladder.locate(key);
  if (!ladder.holds(at, key)) return {};
  return {e.side, e.px, store.level(ladder.rung(at).level).qty};
}

// The volume that an event prints, 0 when it prints none; the rule of the trade quantities of a VIEW.
std::int64_t printed(const Event& e, const Held& held) noexcept {
  if (has(e, flag::NO_PRINT) || has(e, flag::SNAPSHOT) || e.qty <= 0) return 0;
  if (e.action == static_cast<std::uint8_t>(Action::TRADE)) return e.qty;
  const bool execution = e.action == static_cast<std::uint8_t>(Action::REDUCE) && has(e, flag::EXEC);
  return execution && held.px != NULL_PX ? std::min(e.qty, held.qty) : 0;
}

Print print_of(const Event& e, const Held& held, std::int64_t qty) noexcept {
  const bool trade = e.action == static_cast<std::uint8_t>(Action::TRADE);
  const std::int64_t px = trade || e.px != 0 ? e.px : held.px;
  return Print{e.ts_event, e.ts_recv, e.seq, px, qty, e.order_id, e.ref, e.instrument, trade ? e.side : held.side,
               e.flags,    0};
}

Deed deed_of(const Event& e, const Held& held) noexcept {
  Deed d{e.ts_event, e.ts_recv, e.seq,        e.px,     e.qty,     held.px, held.qty,
         e.order_id, e.ref,     e.instrument, e.action, held.side, e.flags, 0};
  const auto action = static_cast<Action>(e.action);
  const bool says = action == Action::ADD || action == Action::TRADE || action == Action::MODIFY;
  if (held.side == side::NONE || (says && e.side != side::NONE)) d.side = e.side;
  const bool known = held.px != NULL_PX;
  if (action == Action::CLEAR || action == Action::DELETE || action == Action::FILL || action == Action::REDUCE) {
    if (e.px == 0 || action == Action::CLEAR) d.px = held.px;
    if (known && action == Action::DELETE) d.qty = held.qty;
    if (known && action == Action::REDUCE) d.qty = std::min(e.qty, held.qty);
  }
  return d;
}

bool is_deed(const Event& e) noexcept {
  return e.action != static_cast<std::uint8_t>(Action::NONE) && e.action != static_cast<std::uint8_t>(Action::STATE) &&
         e.action <= static_cast<std::uint8_t>(Action::FILL);
}

}  // namespace

void Engine::record_bbo() {
  require_fresh();
  bbo_on_ = true;
}

void Engine::record_depth(std::size_t depth) {
  require_fresh();
  depth_ = depth;
  sample_ns_ = 0;
  for (Instrument* in : sorted_) equip(*in);
}

void Engine::record_samples(std::size_t depth, std::int64_t every_ns) {
  record_depth(depth);
  sample_ns_ = every_ns;
  before_on_ = true;
}

void Engine::record_prints() {
  require_fresh();
  prints_on_ = before_on_ = true;
}

void Engine::record_deeds() {
  require_fresh();
  deeds_on_ = before_on_ = true;
}

void Engine::finish() {
  for (Instrument* in : sorted_) {
    Event e{};
    const View& v = in->view;
    e.ts_event = v.ts_event, e.ts_recv = v.ts_recv, e.seq = v.seq;
    in->in_snapshot = false;
    if (bbo_on_) emit_bbo(*in, e);
    if (depth_ > 0 && in->book.deep_change) sample_ns_ > 0 ? due_sample(*in) : emit_depth(*in, e);
  }
  if (sample_ns_ > 0) emit_samples(now);
}

// In front of an event: what the book knows about its order, and the image that a sample may still need.
void Engine::before(Instrument& in, const Event& e) {
  if (in.due && !in.held && !is_news(e)) hold(in);
  if (!prints_on_ && !deeds_on_) return;
  const Held held = held_by(store_, in, e);
  if (deeds_on_ && is_deed(e)) deeds.push(deed_of(e, held));
  if (!prints_on_) return;
  const std::int64_t qty = printed(e, held);
  if (qty > 0) prints.push(print_of(e, held, qty));
}

// Fills `out`; true when it differs from the instrument's last row.
bool Engine::best(const Instrument& in, const Event& e, Bbo& out) const noexcept {
  out = Bbo{e.ts_event, e.ts_recv, e.seq, NULL_PX, 0, NULL_PX, 0, in.book.instrument, 0};
  const Ladder &bids = in.book.side[0], &asks = in.book.side[1];
  if (!bids.empty()) {
    out.bid_px = to_px(false, bids.best().key);
    out.bid_qty = store_.level(bids.best().level).qty;
  }
  if (!asks.empty()) {
    out.ask_px = to_px(true, asks.best().key);
    out.ask_qty = store_.level(asks.best().level).qty;
  }
  const Bbo& last = in.last_bbo;
  return out.bid_px != last.bid_px || out.bid_qty != last.bid_qty || out.ask_px != last.ask_px ||
         out.ask_qty != last.ask_qty;
}

void Engine::emit_bbo(Instrument& in, const Event& e) {
  Bbo row;
  if (!best(in, e, row)) return;
  in.last_bbo = row;
  bbo.push(row);
}

void Engine::levels(const Instrument& in, std::size_t depth, std::int64_t* out) const noexcept {
  for (std::size_t s = 0; s < 2; ++s) {
    const Ladder& ladder = in.book.side[s];
    const std::size_t n = std::min(depth, ladder.size());
    std::size_t i = 0;
    // a tracked view has them side by side already: one read each instead of a walk over the levels
    if (in.book.view != nullptr && depth <= DEPTH) {
      const View& v = in.view;
      const std::int64_t *px = s == 1 ? v.ask_px : v.bid_px, *qty = s == 1 ? v.ask_qty : v.bid_qty;
      for (; i < n; ++i, out += 2) out[0] = px[i], out[1] = qty[i];
    }
    for (; i < n; ++i, out += 2) {
      out[0] = to_px(s == 1, ladder.best(i).key);
      out[1] = store_.level(ladder.best(i).level).qty;
    }
    for (; i < depth; ++i, out += 2) out[0] = NULL_PX, out[1] = 0;
  }
}

void Engine::emit_depth(Instrument& in, const Event& e) {
  in.book.deep_change = false;
  const std::size_t n = depth_ * 4;
  std::int64_t* image = depth_levels.extend(n);
  levels(in, depth_, image);
  if (std::memcmp(image, in.depth_image.data(), n * sizeof(*image)) == 0) {
    depth_levels.resize(depth_levels.size() - n);  // changed and changed back within one event
    return;
  }
  std::memcpy(in.depth_image.data(), image, n * sizeof(*image));
  Bbo row;
  (void)best(in, e, row);
  depth_rows.push(row);
}

// ---- samples -------------------------------------------------------------------------------------------------------

void Engine::due_sample(Instrument& in) {
  in.held = false;
  if (in.due) return;
  in.due = true;
  due_.push_back(&in);
}

// The book as it is now will be the sample unless the event that begins is complete before the grid point.
void Engine::hold(Instrument& in) {
  in.held = true;
  in.held_image.resize(depth_ * 4);
  levels(in, depth_, in.held_image.data());
  Event e{};
  e.ts_event = in.view.ts_event, e.ts_recv = in.view.ts_recv, e.seq = in.view.seq;
  (void)best(in, e, in.held_row);
}

// Samples of the grid point that lies behind us when the clock goes on to `to`; instruments in rising order.
void Engine::emit_samples(std::int64_t to) {
  std::sort(due_.begin(), due_.end(),
            [](const Instrument* a, const Instrument* b) { return a->book.instrument < b->book.instrument; });
  for (Instrument* in : due_) emit_sample(*in);
  due_.clear();
  const std::int64_t in_grid = to % sample_ns_;
  const std::int64_t step = in_grid > 0 ? sample_ns_ - in_grid : -in_grid;  // up to the next multiple
  next_sample_ = to > INT64_MAX - step ? INT64_MAX : to + step;
}

void Engine::emit_sample(Instrument& in) {
  const std::size_t n = depth_ * 4;
  Bbo row = in.held_row;
  if (!in.held) {
    hold(in);
    row = in.held_row;
    in.book.deep_change = false;
  }
  in.due = in.held = false;
  if (in.held_image == in.depth_image) return;
  in.depth_image = in.held_image;
  std::memcpy(depth_levels.extend(n), in.held_image.data(), n * sizeof(std::int64_t));
  depth_rows.push(row);
  sample_times.push(next_sample_);
}

}  // namespace microrisk
