// What a run writes down about its books: best prices, the first levels on change or sampled, prints and events.
#include <algorithm>

#include "event.hpp"
#include "microrisk/engine.hpp"

namespace microrisk {

namespace {

bool is_news(const Event& e) noexcept {
  return has(e, flag::LAST) && !has(e, flag::SNAPSHOT);
}

// What the book holds under the id (or, on L2, at the price) of an event; no side = nothing. The price does not tell:
// an order may rest at the very number that means none.
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
  return execution && held.side != side::NONE ? std::min(e.qty, held.qty) : 0;
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
  const bool known = held.side != side::NONE;
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
  for (Instrument* in : sorted_) equip(*in);
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
    if (in->book.deep_change != 0) emit_changes(*in, e);
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

// An event that touched the first levels is complete. Sides without a mark are as they were when last recorded: their
// levels, which may be far from the cache, are not read.
void Engine::emit_changes(Instrument& in, const Event& e) {
  if (bbo_on_) emit_bbo(in, e);
  if (depth_ == 0) {
    in.book.deep_change = 0;
  } else if (sample_ns_ > 0) {
    due_sample(in);
  } else {
    emit_depth(in, e);
  }
}

void Engine::emit_bbo(Instrument& in, const Event& e) {
  Bbo& last = in.last_bbo;
  std::int64_t top[2][2] = {{last.bid_px, last.bid_qty}, {last.ask_px, last.ask_qty}};
  for (const bool ask : {false, true}) {
    if ((in.book.deep_change >> ask & 1) != 0) level_side(in, ask, 1, top[ask]);
  }
  if (top[0][0] == last.bid_px && top[0][1] == last.bid_qty && top[1][0] == last.ask_px && top[1][1] == last.ask_qty) {
    return;
  }
  last = Bbo{e.ts_event, e.ts_recv, e.seq, top[0][0], top[0][1], top[1][0], top[1][1], in.book.instrument, 0};
  bbo.push(last);
}

void Engine::level_side(const Instrument& in, bool ask, std::size_t depth, std::int64_t* out) const noexcept {
  const Ladder& ladder = in.book.side[ask];
  const std::size_t n = std::min(depth, ladder.size());
  std::size_t i = 0;
  // a view has them side by side already: one read each instead of a walk over the levels
  if (in.book.view != nullptr && depth <= DEPTH) {
    const View& v = in.view;
    const std::int64_t *px = ask ? v.ask_px : v.bid_px, *qty = ask ? v.ask_qty : v.bid_qty;
    for (; i < n; ++i, out += 2) out[0] = px[i], out[1] = qty[i];
  }
  for (; i < n; ++i, out += 2) {
    out[0] = to_px(ask, ladder.best(i).key);
    out[1] = store_.level(ladder.best(i).level).qty;
  }
  for (; i < depth; ++i, out += 2) out[0] = NULL_PX, out[1] = 0;
}

void Engine::levels(const Instrument& in, std::size_t depth, std::int64_t* out) const noexcept {
  level_side(in, false, depth, out);
  level_side(in, true, depth, out + 2 * depth);
}

namespace {

Bbo row_of(const Event& e, std::uint32_t instrument, const std::int64_t* image, std::size_t depth) noexcept {
  const std::int64_t* ask = image + 2 * depth;
  return Bbo{e.ts_event, e.ts_recv, e.seq, image[0], image[1], ask[0], ask[1], instrument, 0};
}

}  // namespace

void Engine::emit_depth(Instrument& in, const Event& e) {
  const std::size_t half = depth_ * 2;
  std::int64_t *image = depth_levels.extend(2 * half), *last = in.depth_image.data();
  bool differs = false;
  for (const bool ask : {false, true}) {
    const std::size_t at = ask ? half : 0;
    if ((in.book.deep_change >> ask & 1) == 0) {
      std::memcpy(image + at, last + at, half * sizeof(*image));
      continue;
    }
    level_side(in, ask, depth_, image + at);
    if (std::memcmp(image + at, last + at, half * sizeof(*image)) == 0) continue;
    std::memcpy(last + at, image + at, half * sizeof(*image));
    differs = true;
  }
  in.book.deep_change = 0;
  if (differs) {
    depth_rows.push(row_of(e, in.book.instrument, image, depth_));
  } else {
    depth_levels.resize(depth_levels.size() - 2 * half);  // changed and changed back within one event
  }
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
  in.held_row = row_of(e, in.book.instrument, in.held_image.data(), depth_);
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
    in.book.deep_change = 0;
  }
  in.due = in.held = false;
  if (in.held_image == in.depth_image) return;
  in.depth_image = in.held_image;
  std::memcpy(depth_levels.extend(n), in.held_image.data(), n * sizeof(std::int64_t));
  depth_rows.push(row);
  sample_times.push(next_sample_);
}

}  // namespace microrisk
