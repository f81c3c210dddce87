// What each action does to a book. The rules are those of microrisk/book/reference.py.
#include <algorithm>

#include "event.hpp"
#include "microrisk/engine.hpp"

namespace microrisk {

namespace {

// Sums of hostile quantities wrap instead of being undefined.
void wrap_add(std::int64_t& sum, std::int64_t x) noexcept {
  sum = static_cast<std::int64_t>(static_cast<std::uint64_t>(sum) + static_cast<std::uint64_t>(x));
}

enum class Kind : std::uint8_t { ADD, CANCEL, TRADE };

// Adds one quantity to those of the event; parts of a book image are not news.
void note(Instrument& in, const Event& e, Kind kind, std::int8_t side, std::int64_t px, std::int64_t qty) noexcept {
  if (in.book.view == nullptr || has(e, flag::SNAPSHOT) || qty <= 0) return;
  Pending& p = in.pending;
  wrap_add(kind == Kind::ADD ? p.add : kind == Kind::CANCEL ? p.cancel : p.trade, qty);
  p.px = px;
  p.side = side;
  p.posted = kind == Kind::ADD;
}

std::int8_t side_of(bool ask) noexcept {
  return ask ? side::ASK : side::BID;
}

}  // namespace

void Engine::dispatch(Instrument& in, const Event& e) {
  switch (static_cast<Action>(e.action)) {
    case Action::NONE: return;
    case Action::ADD: return add(in, e);
    case Action::MODIFY: return modify(in, e);
    case Action::REDUCE: return reduce(in, e);
    case Action::DELETE: return remove(in, e);
    case Action::REPLACE: return replace(in, e);
    case Action::CLEAR: clear(in); return applied(in, e);
    case Action::TRADE: return trade(in, e);
    case Action::STATE: return set_state(in, e);
    case Action::FILL:
      if (store_.find(e.instrument, e.order_id) == NO_HANDLE) report(Integrity::unknown_fill, in, e);
      return;
  }
  report(Integrity::malformed, in, e);
}

void Engine::applied(Instrument& in, const Event& e) noexcept {
  ++n_events;
  in.has_book = true;
  if (!has(e, flag::SNAPSHOT)) in.changed = true;
}

// A new order at the back of its level; false when it was refused and counted.
bool Engine::post(Instrument& in, const Event& e, bool ask, std::int64_t px, std::uint64_t id, std::int64_t qty) {
  if (px == 0 && !has(e, flag::SNAPSHOT)) report(Integrity::zero_price, in, e);
  if (!store_.add(in.book, ask, px, id, qty)) {
    report(Integrity::malformed, in, e);
    return false;
  }
  note(in, e, Kind::ADD, side_of(ask), px, qty);
  return true;
}

void Engine::add(Instrument& in, const Event& e) {
  if (e.side != side::BID && e.side != side::ASK) return report(Integrity::malformed, in, e);
  if (e.qty <= 0) return report(Integrity::zero_qty, in, e);
  if (store_.find(e.instrument, e.order_id) != NO_HANDLE) return report(Integrity::duplicate_order, in, e);
  if (post(in, e, e.side == side::ASK, e.px, e.order_id, e.qty)) applied(in, e);
}

void Engine::modify(Instrument& in, const Event& e) {
  if (has(e, flag::EXEC)) note_trade(in, e);
  if (e.order_id == 0) return modify_level(in, e);
  const Handle h = store_.find(e.instrument, e.order_id);
  if (h == NO_HANDLE) {
    report(Integrity::unknown_order, in, e);
    if (e.qty != 0) add(in, e);
    return;
  }
  if (e.qty == 0) return remove(in, e);
  if (e.qty < 0) return report(Integrity::zero_qty, in, e);
  const bool was_ask = store_.level_of(h).ask();
  const bool ask = e.side == side::NONE ? was_ask : e.side == side::ASK;
  if (ask != was_ask) report(Integrity::side_mismatch, in, e);
  modify_order(in, e, h, ask);
}

// New price, size or side of a known order. Executions are counted by the event that prints them.
void Engine::modify_order(Instrument& in, const Event& e, Handle h, bool ask) {
  const Level& level = store_.level_of(h);
  const bool was_ask = level.ask(), quiet = has(e, flag::EXEC);
  const std::int64_t old_px = to_px(was_ask, level.key), old_qty = store_.order(h).qty;
  const bool same_place = ask == was_ask && e.px == old_px;
  if (same_place && (e.qty <= old_qty || has(e, flag::PRIORITY_KEPT))) {
    if (!store_.resize(in.book, h, e.qty)) return report(Integrity::malformed, in, e);
  } else {
    if (!same_place && e.px == 0 && !has(e, flag::SNAPSHOT)) report(Integrity::zero_price, in, e);
    store_.remove(in.book, h);
    if (!store_.add(in.book, ask, e.px, e.order_id, e.qty)) report(Integrity::malformed, in, e);
  }
  applied(in, e);
  if (quiet) return;
  if (!same_place) {
    note(in, e, Kind::CANCEL, side_of(was_ask), old_px, old_qty);
    note(in, e, Kind::ADD, side_of(ask), e.px, e.qty);
  } else if (e.qty > old_qty) {
    note(in, e, Kind::ADD, side_of(ask), e.px, e.qty - old_qty);
  } else {
    note(in, e, Kind::CANCEL, side_of(ask), e.px, old_qty - e.qty);
  }
}

void Engine::modify_level(Instrument& in, const Event& e) {
  if (e.side != side::BID && e.side != side::ASK) return report(Integrity::malformed, in, e);
  if (e.qty < 0) return report(Integrity::zero_qty, in, e);
  const bool ask = e.side == side::ASK;
  std::int64_t before = 0;
  if (!store_.set_level(in.book, ask, e.px, e.qty, before)) return report(Integrity::malformed, in, e);
  if (e.qty == 0 && before == 0) return report(Integrity::unknown_level, in, e);
  applied(in, e);
  if (has(e, flag::EXEC)) return;
  if (e.qty > before) note(in, e, Kind::ADD, e.side, e.px, e.qty - before);
  if (e.qty < before) note(in, e, Kind::CANCEL, e.side, e.px, before - e.qty);
}

void Engine::reduce(Instrument& in, const Event& e) {
  if (has(e, flag::EXEC)) note_trade(in, e);
  const Handle h = store_.find(e.instrument, e.order_id);
  if (h == NO_HANDLE) return report(Integrity::unknown_order, in, e);
  if (e.qty <= 0) return report(Integrity::zero_qty, in, e);
  const Level& level = store_.level_of(h);
  const bool ask = level.ask(), executed = has(e, flag::EXEC);
  const std::int64_t px = to_px(ask, level.key), left = store_.order(h).qty;
  if (e.qty < left) {
    (void)store_.resize(in.book, h, left - e.qty);  // smaller always fits
  } else {
    if (e.qty > left) report(Integrity::over_execute, in, e);
    store_.remove(in.book, h);
  }
  applied(in, e);
  if (executed && has(e, flag::NO_PRINT)) return;
  note(in, e, executed ? Kind::TRADE : Kind::CANCEL, side_of(ask), executed && e.px != 0 ? e.px : px,
       std::min(e.qty, left));
}

void Engine::remove(Instrument& in, const Event& e) {
  if (has(e, flag::EXEC)) note_trade(in, e);
  const Handle h = store_.find(e.instrument, e.order_id);
  if (h == NO_HANDLE) return report(Integrity::unknown_order, in, e);
  const Level& level = store_.level_of(h);
  const bool ask = level.ask();
  const std::int64_t px = to_px(ask, level.key), left = store_.order(h).qty;
  store_.remove(in.book, h);
  applied(in, e);
  if (!has(e, flag::EXEC)) note(in, e, Kind::CANCEL, side_of(ask), px, left);
}

void Engine::replace(Instrument& in, const Event& e) {
  const Handle h = store_.find(e.instrument, e.order_id);
  if (h == NO_HANDLE) return report(Integrity::unknown_order, in, e);
  const Level& level = store_.level_of(h);
  const bool ask = level.ask();
  const std::int64_t old_px = to_px(ask, level.key), old_qty = store_.order(h).qty;
  store_.remove(in.book, h);
  applied(in, e);
  note(in, e, Kind::CANCEL, side_of(ask), old_px, old_qty);
  if (e.qty <= 0) return report(Integrity::zero_qty, in, e);
  if (store_.find(e.instrument, e.ref) != NO_HANDLE) return report(Integrity::duplicate_order, in, e);
  (void)post(in, e, ask, e.px, e.ref, e.qty);
}

void Engine::clear(Instrument& in) {
  store_.clear(in.book);
  in.suspect = false;
}

void Engine::trade(Instrument& in, const Event& e) {
  note_trade(in, e);
  if (!has(e, flag::NO_PRINT)) note(in, e, Kind::TRADE, e.side, e.px, e.qty);
}

// The first trade that is not an auction's opens the session.
void Engine::note_trade(Instrument& in, const Event& e) const noexcept {
  const bool waiting = in.state == TradingState::UNKNOWN || in.state == TradingState::PREOPEN;
  if (waiting && !has(e, flag::CROSS)) in.state = TradingState::TRADING;
}

void Engine::set_state(Instrument& in, const Event& e) {
  if (e.ref > static_cast<std::uint64_t>(TradingState::ALWAYS)) return report(Integrity::malformed, in, e);
  if (in.state != TradingState::ALWAYS) in.state = static_cast<TradingState>(e.ref);
}

}  // namespace microrisk
