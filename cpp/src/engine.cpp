#include "microrisk/engine.hpp"

#include <algorithm>
#include <stdexcept>
#include <utility>

#include "event.hpp"

namespace microrisk {

namespace {

constexpr std::uint8_t NO_LEVEL = 255;

bool is_news(const Event& e) noexcept {
  return has(e, flag::LAST) && !has(e, flag::SNAPSHOT);
}

// 0-based level of a price among the visible ones.
std::uint8_t level_of(const View& v, std::int8_t side, std::int64_t px) noexcept {
  const std::int64_t* pxs = side == side::ASK ? v.ask_px : v.bid_px;
  const std::size_t n = side == side::ASK ? v.n_ask : v.n_bid;
  for (std::size_t i = 0; i < n; ++i) {
    if (pxs[i] == px) return static_cast<std::uint8_t>(i);
  }
  return NO_LEVEL;
}

// Kinds after which a book must not be trusted.
bool marks_suspect(Integrity kind) noexcept {
  return kind == Integrity::unknown_order || INTEGRITY_HARD[static_cast<std::size_t>(kind)];
}

}  // namespace

void StateBlock::assign(const Bytes& from) {
  size_ = from.size();
  words_.assign((size_ + 7) / 8, 0);
  if (size_ > 0) std::memcpy(words_.data(), from.data(), size_);
}

Instruments::~Instruments() {
  for (const Chunk& chunk : chunks_) {
    std::destroy_n(chunk.first, chunk.used);
    std::free(chunk.first);
  }
}

Instrument& Instruments::make(std::uint32_t index) {
  constexpr std::size_t FIRST = 16, MOST = 8192;  // a chunk: the second size is several large pages
  if (chunks_.empty() || chunks_.back().used == chunks_.back().room) {
    const std::size_t room = chunks_.empty() ? FIRST : std::min(MOST, 4 * chunks_.back().room);
    chunks_.reserve(chunks_.size() + 1);
    chunks_.push_back(Chunk{static_cast<Instrument*>(allocate_block(room * sizeof(Instrument))), 0, room});
    bytes_ += room * sizeof(Instrument);
  }
  Chunk& chunk = chunks_.back();
  Instrument* made = std::construct_at(chunk.first + chunk.used, index);
  ++chunk.used;
  return *made;
}

Engine::Engine(bool always_open, std::size_t reserve_orders, std::size_t reserve_instruments)
    : bbo(&growths),
      depth_rows(&growths),
      depth_levels(&growths),
      sample_times(&growths),
      prints(&growths),
      deeds(&growths),
      views(&growths),
      rows(&growths),
      trades(&growths),
      store_(reserve_orders, &growths),
      first_state_(always_open ? TradingState::ALWAYS : TradingState::UNKNOWN) {
  findings.reserve(MAX_FINDINGS);
  table_.reserve(reserve_instruments);
  sorted_.reserve(reserve_instruments);
  ticking_.reserve(reserve_instruments);
  growths = 0;
}

// ---- instruments ---------------------------------------------------------------------------------------------------

Instrument& Engine::at(std::uint32_t index) {
  if (index < table_.size() && table_[index] != nullptr) return *table_[index];
  if (index >= table_.size()) table_.resize(std::max<std::size_t>(index + std::size_t{1}, table_.size() * 2), nullptr);
  Instrument& in = pool_.make(index);
  ++growths;
  in.state = first_state_;
  table_[index] = &in;
  const auto place = std::upper_bound(sorted_.begin(), sorted_.end(), index,
                                      [](std::uint32_t i, const Instrument* x) { return i < x->book.instrument; });
  sorted_.insert(place, &in);
  equip(in);
  return in;
}

void Engine::equip(Instrument& in) {
  const bool tracked = tracked_ && !watch_.select;
  in.book.view = tracked || (depth_ > 0 && depth_ <= DEPTH) ? &in.view : nullptr;
  in.book.watch_depth = static_cast<std::uint32_t>(std::max<std::size_t>(depth_, bbo_on_));
  in.view.instrument = in.book.instrument;
  in.view.ts_event = in.view.ts_recv = NULL_TS;
  in.last_bbo = Bbo{NULL_TS, NULL_TS, 0, NULL_PX, 0, NULL_PX, 0, in.book.instrument, 0};
  in.depth_image.resize(depth_ * 4, 0);
  levels(in, depth_, in.depth_image.data());
  in.table = watch_.table;
  if (watch_.select) return;
  in.state_block.assign(watch_.state);
  in.alert_state.assign(watch_.alert_state);
}

// The view's levels out of the ladders; from here on they are kept in step.
void Engine::show(Instrument& in) {
  TopLevels(in.view).cleared();
  for (const bool ask : {false, true}) {
    const Ladder& ladder = in.book.side[ask];
    const std::size_t n = std::min<std::size_t>(ladder.size(), DEPTH);
    for (std::size_t i = 0; i < n; ++i) {
      const Level& level = store_.level(ladder.best(i).level);
      TopLevels(in.view).inserted(ask, i, to_px(ask, level.key), level.qty);
    }
  }
  in.book.view = &in.view;
}

void Engine::watch_instrument(std::uint32_t instrument, bool on) {
  if (!watch_.select) throw std::logic_error("watch_instrument is for a stage that selects");
  if (instrument >= MAX_INSTRUMENTS) throw std::out_of_range("instrument index above 2^20 - 1");
  Instrument& in = at(instrument);
  if (on == (in.book.view != nullptr)) return;
  in.pending = Pending{};
  in.scored = false;
  if (!on) {
    in.book.view = nullptr;
    in.ticks_left = 0;
    std::erase(ticking_, &in);
    return;
  }
  show(in);
  if (!in.own) in.state_block.assign(watch_.state);
  in.alert_state.assign(watch_.alert_state);
}

bool Engine::watched(std::uint32_t instrument) const noexcept {
  const Instrument* in = find(instrument);
  return tracked_ && in != nullptr && in->book.view != nullptr;
}

// ---- set-up --------------------------------------------------------------------------------------------------------

void Engine::require_fresh() const {
  if (started_) throw std::logic_error("sinks and stages are switched on before the first event");
}

void Engine::track() {
  tracked_ = true;
  for (Instrument* in : sorted_) in->book.view = &in->view;
}

void Engine::record_views(std::int64_t every_ns) {
  require_fresh();
  every_ns_ = every_ns;
  views_on_ = true;
  track();
}

void Engine::watch(Watch stage) {
  require_fresh();
  watch_ = std::move(stage);
  track();
  for (Instrument* in : sorted_) equip(*in);
}

void Engine::ticks(bool on) {
  require_fresh();
  ticks_on_ = on;
}

void Engine::set_table(std::uint32_t instrument, const Bytes& state, const std::int8_t* table,
                       const Bytes& alert_params, bool keep_state) {
  if (watch_.kernel == nullptr) throw std::logic_error("set_table comes after watch");
  if (instrument >= MAX_INSTRUMENTS) throw std::out_of_range("instrument index above 2^20 - 1");
  Instrument& in = at(instrument);
  in.table = table;
  in.own = true;
  if (!keep_state) in.state_block.assign(state);
  if (!alert_params.empty()) in.alert_params.assign(alert_params);
}

void Engine::latency(bool on) {
  if (!on) {
    clock_.reset();
  } else if (clock_ == nullptr) {
    clock_ = std::make_unique<CycleClock>();
  }
}

// ---- findings ------------------------------------------------------------------------------------------------------

void Engine::tally(Integrity kind, std::uint64_t n, Instrument* in, const Finding& finding) {
  const auto k = static_cast<std::size_t>(kind);
  integrity[k] += n;
  if (findings.size() < MAX_FINDINGS) findings.push(finding);
  if (in == nullptr) return;
  in->integrity[k] += n;
  if (marks_suspect(kind)) in->suspect = true;
}

void Engine::report(Integrity kind, Instrument& in, const Event& e) {
  tally(kind, 1, &in, finding_of(kind, e));
}

void Engine::count(Integrity kind, std::uint64_t n, std::uint32_t instrument) {
  if (n == 0) return;
  const Finding finding{now, 0, 0, 0, 0, instrument, static_cast<std::uint32_t>(kind)};
  Instrument* in = instrument < MAX_INSTRUMENTS ? &at(instrument) : nullptr;
  tally(kind, n, in, finding);
  // messages lost on the whole feed: no book can be trusted
  if (in == nullptr && kind == Integrity::gap) {
    for (Instrument* each : sorted_) each->suspect = true;
  }
}

void Engine::doubt(std::uint32_t instrument) noexcept {
  for (Instrument* in : sorted_) in->suspect |= instrument == ALL_INSTRUMENTS || in->book.instrument == instrument;
}

void Engine::forget_states() noexcept {
  if (first_state_ == TradingState::ALWAYS) return;
  first_state_ = TradingState::UNKNOWN;
  for (Instrument* in : sorted_) in->state = first_state_;
}

void Engine::run_clock(std::int64_t to) {
  started_ = true;
  if (to > now) advance(to);
}

void Engine::reset_book(std::uint32_t instrument) {
  Instrument* in = find(instrument);
  if (in == nullptr) return;
  if (in->due && !in->held) hold(*in);  // a sample that is due shows the last complete event
  clear(*in);
  // no message says so: rows about it carry the clock and number 0 (the short way of ITCH leaves no stamps here)
  in->view.ts_event = now, in->view.ts_recv = NULL_TS, in->view.seq = 0;
}

// ---- runs ----------------------------------------------------------------------------------------------------------

void Engine::run_events(const Event* events, std::size_t n) {
  if (clock_ == nullptr) {
    for (std::size_t i = 0; i < n; ++i) apply(events[i]);
    return;
  }
  for (std::size_t i = 0; i < n; ++i) {
    const std::uint64_t begin = clock_->ticks();
    apply(events[i]);
    histogram.add(clock_->to_ns(clock_->ticks() - begin));
  }
}

void Engine::bad_message(Integrity kind, const ItchDecoder& decoder, ItchDecoder::Message m) {
  Finding finding{now, decoder.messages, 0, 0, 0, ALL_INSTRUMENTS, static_cast<std::uint32_t>(kind)};
  Instrument* in = nullptr;
  constexpr std::size_t at = itch::add_order::locate_at;
  if (m.size >= at + 2) {
    // a hint only: the message is damaged, so it may mark a book but never make one
    finding.instrument = static_cast<std::uint32_t>(m.data[at] << 8 | m.data[at + 1]);
    in = find(finding.instrument);
  }
  tally(kind, 1, in, finding);
}

// ---- one event -----------------------------------------------------------------------------------------------------

void Engine::apply(const Event& e) {
  started_ = true;
  const std::int64_t t = e.ts_recv != NULL_TS ? e.ts_recv : e.ts_event;
  if (t > now) advance(t);
  if (e.instrument >= MAX_INSTRUMENTS) {
    broadcast(e);
    return;
  }
  Instrument& in = at(e.instrument);
  if (before_on_) before(in, e);
  View& v = in.view;
  v.ts_event = e.ts_event, v.ts_recv = e.ts_recv, v.seq = e.seq;
  // a new book image takes the mark off; what is wrong inside or behind it puts the mark on again
  const bool image = has(e, flag::SNAPSHOT);
  if (image && !in.in_snapshot) in.suspect = false;
  in.in_snapshot = image;
  if (has(e, flag::SUSPECT)) in.suspect = true;
  dispatch(in, e);
  if (is_news(e)) complete(in, e);
}

void Engine::advance(std::int64_t to) {
  if (sample_ns_ > 0 && to > next_sample_) emit_samples(to);
  if (to >= next_tick_) emit_ticks(to);
  now = to;
  if (ticks_on_ && next_tick_ == INT64_MAX && to < INT64_MAX - 2 * TICK_NS) {
    const std::int64_t in_grid = to % TICK_NS;
    next_tick_ = to - in_grid + (in_grid < 0 ? 0 : TICK_NS);
  }
}

// A state of the whole market. An opening does not end the halt or auction of a single instrument.
void Engine::broadcast(const Event& e) {
  const bool known = e.ref <= static_cast<std::uint64_t>(TradingState::ALWAYS);
  if (e.instrument != ALL_INSTRUMENTS || e.action != static_cast<std::uint8_t>(Action::STATE) || !known) {
    tally(Integrity::malformed, 1, nullptr, finding_of(Integrity::malformed, e));
    return;
  }
  if (first_state_ == TradingState::ALWAYS) return;
  first_state_ = static_cast<TradingState>(e.ref);
  for (Instrument* in : sorted_) {
    const bool held = in->state == TradingState::HALTED || in->state == TradingState::AUCTION;
    if (!(held && first_state_ == TradingState::TRADING)) in->state = first_state_;
  }
}

// ---- the end of an event -------------------------------------------------------------------------------------------

void Engine::complete(Instrument& in, const Event& e) {
  if (in.changed) {
    in.changed = false;
    check_crossed(in, e);
  }
  ++in.completed;
  if (in.book.deep_change != 0) emit_changes(in, e);
  if (!tracked_ || (watch_.select && in.book.view == nullptr)) return;
  View& v = in.view;
  Pending& p = in.pending;
  v.now = now;
  v.px = p.px;
  v.add_qty = p.add, v.cancel_qty = p.cancel, v.trade_qty = p.trade;
  v.action = e.action, v.side = p.side, v.flags = e.flags;
  v.level = p.posted ? level_of(v, p.side, p.px) : NO_LEVEL;
  v.tick = 0;
  if (trades_on_ && p.trade > 0)
    trades.push(Trade{now, p.px, p.trade, in.book.instrument, -static_cast<std::int32_t>(p.side)});
  p = Pending{};
  if (ticks_on_ && in.ticks_left == 0) {
    ticking_.push_back(&in);
    ticking_sorted_ = false;
  }
  in.ticks_left = MAX_TICKS;
  emit_view(in);
}

void Engine::check_crossed(Instrument& in, const Event& e) {
  const Ladder &bids = in.book.side[0], &asks = in.book.side[1];
  const bool alarmed = std::exchange(in.alarmed, false);
  in.book.top_raised = in.crossed = false;
  if (bids.empty() || asks.empty()) return;
  const std::int64_t bid = to_px(false, bids.best().key), ask = to_px(true, asks.best().key);
  if (bid < ask) return;
  in.crossed = true;
  const bool open = in.state == TradingState::TRADING || in.state == TradingState::ALWAYS;
  in.alarmed = open && bid > ask;
  if (in.alarmed && !alarmed && trades_on_) crossings.push(Crossing{now, e.seq, bid, ask, in.book.instrument, 0});
  if (bid > ask) {
    report(open ? Integrity::crossed : Integrity::crossed_preopen, in, e);
  } else {
    report(open ? Integrity::locked : Integrity::locked_preopen, in, e);
  }
}

void Engine::emit_view(Instrument& in) {
  View& v = in.view;
  v.suspect = in.suspect;
  if (views_on_ && v.now >= in.next_view) {
    views.push(v);
    if (every_ns_ > 0 && __builtin_add_overflow(v.now, every_ns_, &in.next_view)) in.next_view = INT64_MAX;
  }
  if (watch_.kernel != nullptr) score(in);
}

// Staleness ticks at the grid points up to and including `to`, instruments in rising order of index.
void Engine::emit_ticks(std::int64_t to) {
  to = std::min(to, INT64_MAX - 2 * TICK_NS);
  if (!ticking_sorted_) {
    std::sort(ticking_.begin(), ticking_.end(),
              [](const Instrument* a, const Instrument* b) { return a->book.instrument < b->book.instrument; });
    ticking_sorted_ = true;
  }
  for (; next_tick_ <= to && !ticking_.empty(); next_tick_ += TICK_NS) {
    for (Instrument* in : ticking_) emit_tick(*in, next_tick_);
    std::erase_if(ticking_, [](const Instrument* in) { return in->ticks_left == 0; });
  }
  next_tick_ = INT64_MAX;  // advance() finds the next grid point behind `to`
}

// A view without news: times and sequence stay those of the instrument's last event.
void Engine::emit_tick(Instrument& in, std::int64_t time) {
  --in.ticks_left;
  View& v = in.view;
  v.now = time;
  v.px = v.add_qty = v.cancel_qty = v.trade_qty = 0;
  v.action = v.flags = 0;
  v.side = side::NONE;
  v.level = NO_LEVEL;
  v.tick = 1;
  emit_view(in);
}

void Engine::score(Instrument& in) {
  alignas(32) std::int8_t codes[N_FEATURES] = {};
  const View& v = in.view;
  if (watch_.kernel(&v, in.state_block.data(), in.table, codes) == 0) return;
  Row row{};
  row.now = v.now, row.ts_event = v.ts_event, row.ts_recv = v.ts_recv, row.seq = v.seq;
  std::memcpy(row.codes, codes, sizeof(codes));
  row.instrument = v.instrument, row.tick = v.tick, row.suspect = v.suspect;
  if (watch_.heads != nullptr) watch_.heads->score(codes, row.heads);
  if (watch_.alert != nullptr) {
    std::uint8_t state[2] = {0, 0};
    // most instruments share one table of 3 KB: a copy for each would push books out of the cache
    const void* params = in.alert_params.size() > 0 ? in.alert_params.data() : watch_.alert_params.data();
    watch_.alert(row.heads, params, in.alert_state.data(), row.level, state);
    row.alert = state[0], row.fresh = state[1];
  }
  in.last_row = row;
  in.scored = true;
  if (watch_.rows == RowsKept::ALL || (watch_.rows == RowsKept::FRESH && row.fresh != 0)) rows.push(row);
}

}  // namespace microrisk
