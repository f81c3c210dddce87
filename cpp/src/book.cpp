#include "microrisk/book.hpp"

#include <limits>

namespace microrisk {

namespace {
constexpr std::size_t MAX_HANDLES = std::numeric_limits<Handle>::max();

template <class T>
Handle fresh(Arena<T>& pool) {
  if (pool.size() >= MAX_HANDLES) throw std::length_error("more than 2^32 - 1 orders or levels at once");
  pool.push(T{});
  return static_cast<Handle>(pool.size() - 1);
}
}  // namespace

Handle BookStore::new_order() {
  const Handle h = free_orders_;
  if (h == NO_HANDLE) return fresh(orders_);
  free_orders_ = orders_[h].next;
  return h;
}

Handle BookStore::new_level() {
  const Handle h = free_levels_;
  if (h == NO_HANDLE) return fresh(levels_);
  free_levels_ = levels_[h].head;
  return h;
}

// Tells view and depth watch that the quantity of an existing level changed.
void BookStore::quantity_changed(Book& book, const Level& level) const noexcept {
  const bool ask = level.ask != 0;
  if (book.tracked) {
    const std::size_t n = ask ? book.view.n_ask : book.view.n_bid;
    const std::int64_t* pxs = ask ? book.view.ask_px : book.view.bid_px;
    if (n > 0 && level.key >= to_key(ask, pxs[n - 1]))
      TopLevels(book.view).changed(ask, to_px(ask, level.key), level.qty);
  }
  if (book.watch_depth > 0 && !book.deep_change) {
    const Ladder& ladder = book.side[ask];
    const std::size_t n = std::min(ladder.size(), book.watch_depth);
    if (level.key >= ladder.best(n - 1).key) book.deep_change = true;
  }
}

Handle BookStore::insert_level(Book& book, bool ask, std::size_t at, std::int64_t key, std::int64_t qty) {
  const Handle h = new_level();
  Ladder& ladder = book.side[ask];
  try {
    ladder.insert(at, key, h);
  } catch (...) {
    free_level(h);
    throw;
  }
  levels_[h] = Level{key, qty, NO_HANDLE, NO_HANDLE, 0, ask};
  const std::size_t depth = ladder.depth_of(at);
  if (book.tracked) TopLevels(book.view).inserted(ask, depth, to_px(ask, key), qty);
  touch(book, depth);
  return h;
}

void BookStore::erase_level(Book& book, Handle h) noexcept {
  const bool ask = levels_[h].ask != 0;
  Ladder& ladder = book.side[ask];
  const std::size_t at = ladder.locate(levels_[h].key);
  const std::size_t depth = ladder.depth_of(at);
  touch(book, depth);
  ladder.erase(at);
  free_level(h);
  if (!book.tracked || depth >= DEPTH) return;
  const bool more = ladder.size() >= DEPTH;
  const Level& next = levels_[more ? ladder.best(DEPTH - 1).level : NO_HANDLE];
  TopLevels(book.view).removed(ask, depth, more, to_px(ask, next.key), next.qty);
}

bool BookStore::add(Book& book, bool ask, std::int64_t px, std::uint64_t id, std::int64_t qty) {
  const std::int64_t key = to_key(ask, px);
  Ladder& ladder = book.side[ask];
  const std::size_t at = ladder.locate(key);
  const bool held = ladder.holds(at, key);
  std::int64_t sum = qty;
  if (held) {
    const Level& level = levels_[ladder.rung(at).level];
    if (level.orders == 0 || __builtin_add_overflow(level.qty, qty, &sum)) return false;
  }
  const Handle o = new_order();
  orders_[o] = Order{id, qty, NO_HANDLE, NO_HANDLE, NO_HANDLE, book.instrument};
  index_.insert(key_hash(o), o, [this](Handle each) { return key_hash(each); });
  const Handle h = held ? ladder.rung(at).level : insert_level(book, ask, at, key, qty);
  Level& level = levels_[h];
  orders_[o].level = h;
  orders_[o].prev = level.tail;
  (level.tail != NO_HANDLE ? orders_[level.tail].next : level.head) = o;
  level.tail = o;
  ++level.orders;
  level.qty = sum;
  if (held) quantity_changed(book, level);
  return true;
}

bool BookStore::resize(Book& book, Handle order, std::int64_t qty) noexcept {
  Level& level = levels_[orders_[order].level];
  std::int64_t sum = 0;
  if (__builtin_add_overflow(level.qty - orders_[order].qty, qty, &sum)) return false;
  orders_[order].qty = qty;
  level.qty = sum;
  quantity_changed(book, level);
  return true;
}

void BookStore::remove(Book& book, Handle order) noexcept {
  const Order o = orders_[order];
  Level& level = levels_[o.level];
  index_.erase(key_hash(order), order);
  (o.prev != NO_HANDLE ? orders_[o.prev].next : level.head) = o.next;
  (o.next != NO_HANDLE ? orders_[o.next].prev : level.tail) = o.prev;
  free_order(order);
  level.qty -= o.qty;
  if (--level.orders == 0) {
    erase_level(book, o.level);
  } else {
    quantity_changed(book, level);
  }
}

bool BookStore::set_level(Book& book, bool ask, std::int64_t px, std::int64_t qty, std::int64_t& before) {
  const std::int64_t key = to_key(ask, px);
  Ladder& ladder = book.side[ask];
  const std::size_t at = ladder.locate(key);
  before = 0;
  if (!ladder.holds(at, key)) {
    if (qty > 0) insert_level(book, ask, at, key, qty);
    return true;
  }
  const Handle h = ladder.rung(at).level;
  Level& level = levels_[h];
  if (level.orders > 0) return false;
  before = level.qty;
  if (qty == 0) {
    erase_level(book, h);
  } else if (qty != before) {
    level.qty = qty;
    quantity_changed(book, level);
  }
  return true;
}

void BookStore::clear(Book& book) noexcept {
  for (Ladder& ladder : book.side) {
    for (std::size_t i = 0; i < ladder.size(); ++i) {
      const Handle h = ladder.rung(i).level;
      for (Handle o = levels_[h].head; o != NO_HANDLE;) {
        const Handle next = orders_[o].next;
        index_.erase(key_hash(o), o);
        free_order(o);
        o = next;
      }
      free_level(h);
    }
    if (!ladder.empty()) book.deep_change = true;
    ladder.clear();
  }
  TopLevels(book.view).cleared();
}

}  // namespace microrisk
