// Order books of many instruments, order by order, in queue order.
//
// Data structure. All orders of all instruments lie in one pool of 32-byte records with 32-bit handles; a freed record
// is the next one handed out, so a busy book keeps working on warm cache lines. An order hangs in the doubly linked
// queue of its price level and holds the level's handle: executions and cancels (half of an equity feed) touch index
// slot, order and level, and never search a price. Each side of a book is a sorted vector of (price key, level handle)
// with the best price at the BACK; ask prices are stored as ~price, so that both sides sort upwards with one
// comparator (~ and not -, because ~ has no overflow). Books are found by instrument number in a plain table.
//
// Why it is fast on this feed. Most activity is within a few ticks of the best price: the search from the back ends
// after a few steps over adjacent memory, and an insertion or removal there moves only the few better levels. The
// costs that remain are the two cache misses of an old order (index slot, record).
//
// Worst case. A new level deep in a book of L levels moves up to L entries of 16 bytes in one memmove, and finding it
// takes log2(L) steps. An order far behind in a queue costs nothing extra, except for queue_position(), which walks.
// Growth of the pool or the index copies it once; reserve for the day avoids that.
//
// L2 books are the same ladders, whose levels have a quantity and no orders. One level is either of the two kinds.
#pragma once

#include <algorithm>
#include <cstdint>
#include <stdexcept>

#include "microrisk/memory.hpp"
#include "microrisk/order_index.hpp"
#include "microrisk/spec.hpp"

namespace microrisk {

struct Order {
  std::uint64_t id;
  std::int64_t qty;
  Handle next, prev;  // towards the back and the front of the queue
  Handle level;
  std::uint32_t instrument;
};
static_assert(sizeof(Order) == 32);

struct Level {
  std::int64_t key;
  std::int64_t qty;  // sum of the orders, or the venue's own figure on L2
  Handle head, tail;
  std::uint32_t orders;  // 0: an L2 level
  std::uint32_t ask;     // 0 bid, 1 ask
};
static_assert(sizeof(Level) == 32);

struct Rung {
  std::int64_t key;
  Handle level;
  std::uint32_t unused;
};

constexpr std::int64_t to_key(bool ask, std::int64_t px) noexcept {
  return ask ? ~px : px;
}
constexpr std::int64_t to_px(bool ask, std::int64_t key) noexcept {
  return ask ? ~key : key;
}

// One side: rungs in rising order of key, best last.
class Ladder {
 public:
  void count_into(std::uint64_t* growths) noexcept { rungs_.count_into(growths); }
  std::size_t size() const noexcept { return rungs_.size(); }
  bool empty() const noexcept { return rungs_.empty(); }
  // n-th best, 0-based; n < size()
  const Rung& best(std::size_t n = 0) const noexcept { return rungs_[rungs_.size() - 1 - n]; }

  // Index of the first rung whose key is not smaller; the key is there when rung(i).key equals it.
  std::size_t locate(std::int64_t key) const noexcept {
    constexpr std::size_t NEAR = 24;
    std::size_t i = rungs_.size();
    const std::size_t stop = i > NEAR ? i - NEAR : 0;
    while (i > stop && rungs_[i - 1].key >= key) --i;
    if (i > stop || i == 0) return i;
    const Rung* end = rungs_.data() + i;
    const Rung* at = std::lower_bound(rungs_.data(), end, key, [](const Rung& r, std::int64_t k) { return r.key < k; });
    return static_cast<std::size_t>(at - rungs_.data());
  }
  bool holds(std::size_t i, std::int64_t key) const noexcept { return i < rungs_.size() && rungs_[i].key == key; }
  const Rung& rung(std::size_t i) const noexcept { return rungs_[i]; }
  // 0-based distance of rung i from the best
  std::size_t depth_of(std::size_t i) const noexcept { return rungs_.size() - 1 - i; }
  void insert(std::size_t i, std::int64_t key, Handle level) { rungs_.insert(i, Rung{key, level, 0}); }
  void erase(std::size_t i) noexcept { rungs_.erase(i); }
  void clear() noexcept { rungs_.clear(); }

 private:
  Arena<Rung> rungs_;
};

// The first DEPTH levels of both sides, kept in step with a ladder by three calls.
class TopLevels {
 public:
  explicit TopLevels(View& view) noexcept : view_(view) {}

  void inserted(bool ask, std::size_t at, std::int64_t px, std::int64_t qty) noexcept {
    if (at >= DEPTH) return;
    auto [pxs, qtys, n] = arrays(ask);
    const std::size_t last = std::min<std::size_t>(n, DEPTH - 1);
    for (std::size_t i = last; i > at; --i) pxs[i] = pxs[i - 1], qtys[i] = qtys[i - 1];
    pxs[at] = px, qtys[at] = qty;
    n = static_cast<std::uint8_t>(last + 1);
  }

  // `next_px`, `next_qty`: the level that moves up into the last place, if `more`.
  void removed(bool ask, std::size_t at, bool more, std::int64_t next_px, std::int64_t next_qty) noexcept {
    if (at >= DEPTH) return;
    auto [pxs, qtys, n] = arrays(ask);
    const std::size_t last = n - std::size_t{1};
    for (std::size_t i = at; i < last; ++i) pxs[i] = pxs[i + 1], qtys[i] = qtys[i + 1];
    pxs[last] = more ? next_px : 0, qtys[last] = more ? next_qty : 0;
    if (!more) n = static_cast<std::uint8_t>(last);
  }

  void changed(bool ask, std::int64_t px, std::int64_t qty) noexcept {
    auto [pxs, qtys, n] = arrays(ask);
    for (std::size_t i = 0; i < n; ++i) {
      if (pxs[i] == px) {
        qtys[i] = qty;
        return;
      }
    }
  }

  void cleared() noexcept {
    std::memset(view_.bid_px, 0, sizeof(view_.bid_px));
    std::memset(view_.bid_qty, 0, sizeof(view_.bid_qty));
    std::memset(view_.ask_px, 0, sizeof(view_.ask_px));
    std::memset(view_.ask_qty, 0, sizeof(view_.ask_qty));
    view_.n_bid = view_.n_ask = 0;
  }

 private:
  struct Arrays {
    std::int64_t* px;
    std::int64_t* qty;
    std::uint8_t& n;
  };
  Arrays arrays(bool ask) noexcept {
    return ask ? Arrays{view_.ask_px, view_.ask_qty, view_.n_ask} : Arrays{view_.bid_px, view_.bid_qty, view_.n_bid};
  }

  View& view_;
};

struct Book {
  Ladder side[2];  // 0 bid, 1 ask
  std::uint32_t instrument = 0;
  bool tracked = false;      // keep `view` in step
  bool deep_change = false;  // a level within `watch_depth` changed
  std::size_t watch_depth = 0;
  View view{};
};

// Orders, levels and the id index of all books.
class BookStore {
 public:
  BookStore(std::size_t reserve, std::uint64_t* growths) : orders_(growths), levels_(growths) {
    orders_.reserve(reserve + 1);
    levels_.reserve(reserve / 4 + 16);
    orders_.resize(1);  // handle 0 means none
    levels_.resize(1);
    index_.init(reserve, growths);
  }

  const Order& order(Handle h) const noexcept { return orders_[h]; }
  const Level& level(Handle h) const noexcept { return levels_[h]; }
  const Level& level_of(Handle order) const noexcept { return levels_[orders_[order].level]; }
  std::size_t live_orders() const noexcept { return index_.size(); }

  Handle find(std::uint32_t instrument, std::uint64_t id) const noexcept {
    return index_.find(index_.hash(instrument, id),
                       [&](Handle h) { return orders_[h].id == id && orders_[h].instrument == instrument; });
  }

  // False, and nothing is done: the level is an L2 level, or its quantity would not fit.
  [[nodiscard]] bool add(Book& book, bool ask, std::int64_t px, std::uint64_t id, std::int64_t qty);
  // New quantity in place, 0 < qty; false when the level's sum would not fit.
  [[nodiscard]] bool resize(Book& book, Handle order, std::int64_t qty) noexcept;
  void remove(Book& book, Handle order) noexcept;
  // Absolute quantity of an L2 level, 0 removes it. Old quantity in `before`; false on a level that holds orders.
  [[nodiscard]] bool set_level(Book& book, bool ask, std::int64_t px, std::int64_t qty, std::int64_t& before);
  void clear(Book& book) noexcept;

 private:
  std::uint32_t key_hash(Handle h) const noexcept { return index_.hash(orders_[h].instrument, orders_[h].id); }
  Handle new_order();
  Handle new_level();
  void free_level(Handle h) noexcept { levels_[h].head = free_levels_, free_levels_ = h; }
  void free_order(Handle h) noexcept { orders_[h].next = free_orders_, free_orders_ = h; }
  Handle insert_level(Book& book, bool ask, std::size_t at, std::int64_t key, std::int64_t qty);
  void erase_level(Book& book, Handle h) noexcept;
  void touch(Book& book, std::size_t depth) const noexcept {
    if (depth < book.watch_depth) book.deep_change = true;
  }
  void quantity_changed(Book& book, const Level& level) const noexcept;

  Arena<Order> orders_;
  Arena<Level> levels_;
  OrderIndex index_;
  Handle free_orders_ = NO_HANDLE;
  Handle free_levels_ = NO_HANDLE;
};

}  // namespace microrisk
