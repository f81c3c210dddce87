// What a run writes down about its books: best prices and the first levels, on change.
#include "microrisk/engine.hpp"

namespace microrisk {

void Engine::record_bbo() {
  require_fresh();
  bbo_on_ = true;
}

void Engine::record_depth(std::size_t depth) {
  require_fresh();
  depth_ = depth;
  for (Instrument* in : sorted_) equip(*in);
}

void Engine::finish() {
  for (Instrument* in : sorted_) {
    Event e{};
    const View& v = in->view;
    e.ts_event = v.ts_event, e.ts_recv = v.ts_recv, e.seq = v.seq;
    in->in_snapshot = false;
    if (bbo_on_) emit_bbo(*in, e);
    if (depth_ > 0 && in->book.deep_change) emit_depth(*in, e);
  }
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
    for (std::size_t i = 0; i < depth; ++i, out += 2) {
      const bool held = i < ladder.size();
      out[0] = held ? to_px(s == 1, ladder.best(i).key) : NULL_PX;
      out[1] = held ? store_.level(ladder.best(i).level).qty : 0;
    }
  }
}

void Engine::emit_depth(Instrument& in, const Event& e) {
  in.book.deep_change = false;
  const std::size_t n = depth_ * 4, start = depth_levels.size();
  depth_levels.resize(start + n);
  std::int64_t* image = depth_levels.data() + start;
  levels(in, depth_, image);
  if (std::memcmp(image, in.depth_image.data(), n * sizeof(*image)) == 0) {
    depth_levels.resize(start);  // changed and changed back within one event
    return;
  }
  std::memcpy(in.depth_image.data(), image, n * sizeof(*image));
  Bbo row;
  (void)best(in, e, row);
  depth_rows.push(row);
}

}  // namespace microrisk
