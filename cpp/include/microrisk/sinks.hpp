// What an engine records about its books, and the tables that this becomes.
//
// The engine writes plain records, one store to memory a row; a Table turns them into columns a chunk at a time, while
// they are still in the cache, with prices in 1e-9 and nulls marked.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "microrisk/memory.hpp"
#include "microrisk/parquet.hpp"
#include "microrisk/spec.hpp"

namespace microrisk {

class Engine;

// One print: an execution or a trade that counts as volume.
struct Print {
  std::int64_t ts_event, ts_recv;
  std::uint64_t seq;
  std::int64_t px, qty;
  std::uint64_t order_id, ref;
  std::uint32_t instrument;
  std::int8_t side;  // of the resting order
  std::uint8_t flags;
  std::uint16_t reserved;
};

// One event with what the book knew about its order (or level) in front of it; NULL_PX, 0 = nothing.
struct Deed {
  std::int64_t ts_event, ts_recv;
  std::uint64_t seq;
  std::int64_t px, qty, old_px, old_qty;
  std::uint64_t order_id, ref;
  std::uint32_t instrument;
  std::uint8_t action;
  std::int8_t side;
  std::uint8_t flags, reserved;
};

// Instrument numbers to their place in the table's dictionary and to the unit of their prices.
class Naming {
 public:
  // px_exp: prices are px * 10^-px_exp, -18..36. Raises std::out_of_range beyond.
  void set(std::uint32_t instrument, std::int32_t place, int px_exp);
  bool knows(std::uint32_t instrument) const noexcept {
    return instrument < entries_.size() && entries_[instrument].place >= 0;
  }
  std::int32_t place(std::uint32_t instrument) const noexcept { return entries_[instrument].place; }
  std::uint64_t names() const noexcept { return names_; }
  // Price in 1e-9; false when it does not fit or is none.
  bool nano(std::uint32_t instrument, std::int64_t px, std::int64_t& out) const noexcept {
    const Entry& e = entries_[instrument];
    if (px > e.limit || px < -e.limit) return false;
    if (e.down == 1) {
      out = px * e.up;
      return true;
    }
    out = px / e.down;
    return out * e.down == px;
  }
  // The same for `n` prices `step` apart; false when one of them does not fit.
  bool nano(std::uint32_t instrument, const std::int64_t* px, std::size_t step, std::size_t n,
            std::int64_t* out) const noexcept {
    const Entry e = entries_[instrument];
    bool fits = e.down == 1;
    for (std::size_t i = 0; i < n; ++i) {
      const std::int64_t p = px[i * step];
      fits &= (p <= e.limit) & (p >= -e.limit);
      out[i] = static_cast<std::int64_t>(static_cast<std::uint64_t>(p) * static_cast<std::uint64_t>(e.up));
    }
    return fits;
  }

 private:
  struct Entry {
    std::int64_t up = 1, down = 1, limit = 0;
    std::int32_t place = -1;
  };
  std::vector<Entry> entries_;
  std::uint64_t names_ = 0;
};

// Records of one kind as Parquet columns; the columns are those of microrisk/pipeline/tables.py, in its order.
class Table {
 public:
  enum class What : std::uint8_t { BBO, BOOK, SAMPLES, TRADES, EVENTS };
  static constexpr std::size_t PAGE_ROWS = std::size_t{1} << 15, PAGE_VALUES = std::size_t{1} << 20;
  static constexpr std::size_t MAX_COLUMNS = 13;

  Table(What what, std::shared_ptr<const Naming> naming);

  // Takes what the engine has recorded. When an instrument is met that the naming does not know, its number goes to
  // `unknown` and nothing is taken.
  void drain(Engine& engine, std::vector<std::uint32_t>& unknown);
  // Rows of the row group so far.
  std::uint64_t rows() const noexcept { return rows_; }
  // Puts the rest of the row group into pages.
  void end_pages();

  std::span<parquet::Column> columns() noexcept { return {columns_.data(), n_columns_}; }
  std::vector<parquet::Page> pages;
  // The row group is written.
  void begin_group() noexcept { rows_ = paged_ = 0; }

 private:
  template <class R>
  bool known(const Arena<R>& rows, std::vector<std::uint32_t>& unknown) const;
  template <class R, class F>
  void take(Arena<R>& rows, F&& put);
  template <class R>
  void put_stamps(const R& row, std::size_t at);
  void put_px(parquet::Column& column, std::uint32_t instrument, std::int64_t px);
  void put_best(const Bbo& row, std::size_t at);
  void put_levels(const Bbo& row, const std::int64_t* image, std::size_t depth, std::size_t at);
  void put_print(const Print& row);
  void put_deed(const Deed& row);
  void add(std::size_t n, parquet::Kind kind, bool list = false) noexcept;
  void reserve(std::size_t n, std::size_t depth);
  std::uint64_t codes_of(std::size_t column) const noexcept;

  What what_;
  std::shared_ptr<const Naming> naming_;
  std::array<parquet::Column, MAX_COLUMNS> columns_;
  std::size_t n_columns_ = 0;
  std::uint64_t rows_ = 0, paged_ = 0;
};

}  // namespace microrisk
