// Records to columns.
#include <algorithm>
#include <array>
#include <stdexcept>

#include "microrisk/engine.hpp"
#include "microrisk/sinks.hpp"

namespace microrisk {

namespace {

using parquet::Kind;

constexpr int PX_NANO = 9;

std::int64_t power_of_ten(int n) noexcept {
  std::int64_t out = 1;
  for (; n > 0; --n) out *= 10;
  return out;
}

}  // namespace

void Naming::set(std::uint32_t instrument, std::int32_t place, int px_exp) {
  if (px_exp < -9 || px_exp > 27) throw std::out_of_range("px_exp must be -9..27");
  if (instrument >= MAX_INSTRUMENTS || place < 0) throw std::out_of_range("no such instrument or place");
  if (instrument >= entries_.size()) entries_.resize(std::max<std::size_t>(instrument + 1, 2 * entries_.size()));
  Entry& e = entries_[instrument];
  e.up = power_of_ten(std::max(PX_NANO - px_exp, 0));
  e.down = power_of_ten(std::max(px_exp - PX_NANO, 0));
  e.limit = INT64_MAX / e.up;
  e.place = place;
  names_ = std::max<std::uint64_t>(names_, static_cast<std::uint64_t>(place) + 1);
}

Table::Table(What what, std::shared_ptr<const Naming> naming) : what_(what), naming_(std::move(naming)) {
  if (what == What::SAMPLES) add(1, Kind::RISING);  // ts_sample
  add(3, Kind::RISING);                             // ts_event, ts_recv, seq
  add(1, Kind::CODE);                               // instrument
  switch (what) {
    case What::BBO: add(4, Kind::REPEATED); break;
    case What::BOOK:
    case What::SAMPLES:
      add(4, Kind::REPEATED);
      add(4, Kind::REPEATED, true);
      break;
    case What::TRADES:
      add(2, Kind::REPEATED);  // px, qty
      add(1, Kind::CODE);      // aggressor
      add(2, Kind::RISING);    // order_id, trade_id
      add(2, Kind::FLAG);      // hidden, cross
      break;
    case What::EVENTS:
      add(2, Kind::CODE);      // action, side
      add(4, Kind::REPEATED);  // px, qty, old_px, old_qty
      add(2, Kind::RISING);    // order_id, ref
      add(1, Kind::REPEATED);  // flags
      break;
  }
}

void Table::add(std::size_t n, Kind kind, bool list) noexcept {
  for (; n > 0; --n) columns_[n_columns_++].init(kind, list);
}

template <class R>
bool Table::known(const Arena<R>& rows, std::vector<std::uint32_t>& unknown) const {
  for (std::size_t i = 0; i < rows.size(); ++i) {
    if (!naming_->knows(rows[i].instrument)) unknown.push_back(rows[i].instrument);
  }
  std::sort(unknown.begin(), unknown.end());
  unknown.erase(std::unique(unknown.begin(), unknown.end()), unknown.end());
  return unknown.empty();
}

void Table::reserve(std::size_t n, std::size_t depth) {
  const bool lists = what_ == What::BOOK || what_ == What::SAMPLES;
  for (std::size_t c = 0; c < n_columns_; ++c) {
    columns_[c].reserve(lists && c + 4 >= n_columns_ ? std::min(n * depth, PAGE_VALUES + depth) : n);
  }
}

template <class R, class F>
void Table::take(Arena<R>& rows, F&& put) {
  for (std::size_t i = 0; i < rows.size(); ++i) {
    put(i);
    ++rows_;
    const std::size_t values = std::max(columns_[n_columns_ - 3].entries(), columns_[n_columns_ - 1].entries());
    if (rows_ - paged_ >= PAGE_ROWS || values >= PAGE_VALUES) end_pages();
  }
  rows.clear();
}

template <class R>
void Table::put_stamps(const R& row, std::size_t at) {
  columns_[at].put_if(row.ts_event != NULL_TS, row.ts_event);
  columns_[at + 1].put_if(row.ts_recv != NULL_TS, row.ts_recv);
  columns_[at + 2].put(static_cast<std::int64_t>(row.seq));
  columns_[at + 3].put(naming_->place(row.instrument));
}

void Table::put_px(parquet::Column& column, std::uint32_t instrument, std::int64_t px) {
  std::int64_t out = 0;
  const bool there = naming_->nano(instrument, px, out);
  column.put_if(there, out);
}

void Table::put_best(const Bbo& row, std::size_t at) {
  put_px(columns_[at], row.instrument, row.bid_px);
  put_px(columns_[at + 1], row.instrument, row.ask_px);
  columns_[at + 2].put_if(row.bid_px != NULL_PX, row.bid_qty);
  columns_[at + 3].put_if(row.ask_px != NULL_PX, row.ask_qty);
}

// `image`: bid and ask levels (px, qty), best first, NULL_PX behind the last.
void Table::put_levels(const Bbo& row, const std::int64_t* image, std::size_t depth, std::size_t at) {
  for (std::size_t s = 0; s < 2; ++s, image += 2 * depth) {
    parquet::Column &pxs = columns_[at + 2 * s], &qtys = columns_[at + 2 * s + 1];
    std::uint32_t n = 0;
    while (n < depth && image[2 * n] != NULL_PX) ++n;
    std::int64_t* const qty = qtys.put_all(n);
    for (std::uint32_t i = 0; i < n; ++i) qty[i] = image[2 * i + 1];
    if (!naming_->nano(row.instrument, image, 2, n, pxs.put_all(n))) [[unlikely]] {
      pxs.take_back(n);
      for (std::uint32_t i = 0; i < n; ++i) put_px(pxs, row.instrument, image[2 * i]);
    }
    pxs.row(n);
    qtys.row(n);
  }
}

void Table::put_print(const Print& row) {
  put_stamps(row, 0);
  put_px(columns_[4], row.instrument, row.px);
  columns_[5].put(row.qty);
  columns_[6].put(1 - row.side);  // A, N, B: the aggressor is the other side
  columns_[7].put_if(row.order_id != 0, static_cast<std::int64_t>(row.order_id));
  columns_[8].put_if(row.ref != 0, static_cast<std::int64_t>(row.ref));
  columns_[9].put((row.flags & flag::HIDDEN) != 0);
  columns_[10].put((row.flags & flag::CROSS) != 0);
}

void Table::put_deed(const Deed& row) {
  put_stamps(row, 0);
  columns_[4].put(row.action);
  columns_[5].put(1 + row.side);
  put_px(columns_[6], row.instrument, row.px);
  columns_[7].put(row.qty);
  put_px(columns_[8], row.instrument, row.old_px);
  columns_[9].put_if(row.old_px != NULL_PX, row.old_qty);
  columns_[10].put(static_cast<std::int64_t>(row.order_id));
  columns_[11].put(static_cast<std::int64_t>(row.ref));
  columns_[12].put(row.flags);
}

void Table::drain(Engine& engine, std::vector<std::uint32_t>& unknown) {
  const std::size_t depth = engine.depth();
  switch (what_) {
    case What::BBO:
      if (!known(engine.bbo, unknown)) return;
      reserve(engine.bbo.size(), depth);
      take(engine.bbo, [&](std::size_t i) { put_stamps(engine.bbo[i], 0), put_best(engine.bbo[i], 4); });
      return;
    case What::BOOK:
    case What::SAMPLES: {
      if (!known(engine.depth_rows, unknown)) return;
      reserve(engine.depth_rows.size(), depth);
      const std::size_t at = what_ == What::SAMPLES;
      take(engine.depth_rows, [&](std::size_t i) {
        const Bbo& row = engine.depth_rows[i];
        if (at == 1) columns_[0].put_if(engine.sample_times[i] != NULL_TS, engine.sample_times[i]);
        put_stamps(row, at);
        put_best(row, at + 4);
        put_levels(row, engine.depth_levels.data() + i * depth * 4, depth, at + 8);
      });
      engine.depth_levels.clear();
      engine.sample_times.clear();
      return;
    }
    case What::TRADES:
      if (!known(engine.prints, unknown)) return;
      reserve(engine.prints.size(), depth);
      return take(engine.prints, [&](std::size_t i) { put_print(engine.prints[i]); });
    case What::EVENTS:
      if (!known(engine.deeds, unknown)) return;
      reserve(engine.deeds.size(), depth);
      return take(engine.deeds, [&](std::size_t i) { put_deed(engine.deeds[i]); });
  }
}

// Entries of the dictionary of a CODE column.
std::uint64_t Table::codes_of(std::size_t column) const noexcept {
  constexpr std::uint64_t SIDES = 3, ACTIONS = static_cast<std::uint64_t>(Action::FILL) + 1;
  if (column == (what_ == What::SAMPLES ? 4U : 3U)) return naming_->names();
  return what_ == What::EVENTS && column == 4 ? ACTIONS : SIDES;
}

void Table::end_pages() {
  for (std::size_t c = 0; c < n_columns_; ++c) {
    columns_[c].end_page(static_cast<std::uint32_t>(c), codes_of(c), pages);
  }
  paged_ = rows_;
}

}  // namespace microrisk
