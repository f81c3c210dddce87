// Order books of many instruments, order by order, in queue order.
//
// Data structure. All orders of all instruments lie in one pool of 32-byte records with 32-bit handles; a freed record
// is the next one handed out, so a busy book keeps working on warm cache lines. An order hangs in the doubly linked
// queue of its price level, in the chain of its index bucket, and holds the level's handle: executions and cancels
// (half of an equity feed) touch bucket, order and level, and never search a price. Each side of a book is a ladder
// (see ladder.hpp). Books are found by instrument number in a plain table.
//
// Why it is fast on this feed. Most activity is within a few ticks of the best price: the search there is eight
// comparisons over adjacent memory, and an insertion or removal moves only the few better levels. The costs that remain
// are the cache misses of old orders (bucket, record, level, neighbours); itch_run.cpp asks for those lines ahead.
//
// Worst case. A new level in the middle of a book of L levels moves L / 2 entries of 16 bytes in one memmove, and
// finding it takes log2(L) steps. An order far behind in a queue costs nothing extra, except for queue_position(),
// which walks. Growth of a pool or the index copies it once; reserve for the day avoids that.
//
// L2 books are the same ladders, whose levels have a quantity and no orders. One level is either of the two kinds.
#pragma once

#include <cstdint>
#include <limits>
#include <stdexcept>

#include "microrisk/ladder.hpp"
#include "microrisk/memory.hpp"
#include "microrisk/order_index.hpp"
#include "microrisk/slab.hpp"
#include "microrisk/spec.hpp"
#include "microrisk/top_levels.hpp"

namespace microrisk {

struct Order {
  std::uint64_t id;
  std::int64_t qty;
  Handle next, prev;  // towards the back and the front of the queue
  Handle level;
  Handle chain;  // next order of the same index bucket
};
static_assert(sizeof(Order) == 32);

struct Level {
  std::int64_t key;
  std::int64_t qty;  // sum of the orders, or the venue's own figure on L2
  Handle head, tail;
  std::uint32_t orders;  // 0: an L2 level
  std::uint32_t owner;   // instrument << 1 | ask

  bool ask() const noexcept { return (owner & 1) != 0; }
  std::uint32_t instrument() const noexcept { return owner >> 1; }
};
static_assert(sizeof(Level) == 32);

struct Book {
  Ladder side[2];        // 0 bid, 1 ask
  View* view = nullptr;  // kept in step when there is one
  std::uint32_t instrument = 0;
  std::uint32_t watch_depth = 0;
  std::uint8_t deep_change = 0;  // bits of the sides (1 bid, 2 ask) of which a level within `watch_depth` changed
  bool top_raised = false;       // a better best price came since the last check for crossing
  void deep_changed(bool ask) noexcept { deep_change = static_cast<std::uint8_t>(deep_change | 1U << ask); }
  bool watched() const noexcept { return view != nullptr || watch_depth > 0; }
};

// Orders, levels and the id index of all books.
class BookStore {
 public:
  BookStore(std::size_t reserve, std::uint64_t* growths);

  const Order& order(Handle h) const noexcept { return orders_[h]; }
  const Level& level(Handle h) const noexcept { return levels_[h]; }
  const Level& level_of(Handle order) const noexcept { return levels_[orders_[order].level]; }
  std::size_t live_orders() const noexcept { return index_.size(); }
  const OrderIndex& index() const noexcept { return index_; }
  std::size_t order_bytes() const noexcept { return orders_.bytes(); }
  std::size_t level_bytes() const noexcept { return levels_.bytes(); }
  std::size_t ladder_bytes() const noexcept { return slab_.bytes(); }

  Handle find(std::uint32_t instrument, std::uint64_t id) const noexcept {
    return find_in(index_.bucket(instrument, id), instrument, id);
  }
  Handle find_in(std::size_t bucket, std::uint32_t instrument, std::uint64_t id) const noexcept {
    Handle h = index_.first(bucket);
    while (h != NO_HANDLE && !(orders_[h].id == id && same_book(h, instrument))) h = orders_[h].chain;
    return h;
  }
  // Whether find_in() would find nothing, for an id that most likely is new: no branch on chains of one order.
  bool fresh(std::size_t bucket, std::uint32_t instrument, std::uint64_t id) const noexcept {
    const Order& first = orders_[index_.first(bucket)];  // record 0 stands for no order
    if ((first.id != id) & (first.chain == NO_HANDLE)) [[likely]]
      return true;
    return find_in(bucket, instrument, id) == NO_HANDLE;
  }

  // False, and nothing is done: the level is an L2 level, or its quantity would not fit. The id must not be live.
  [[nodiscard]] bool add(Book& book, bool ask, std::int64_t px, std::uint64_t id, std::int64_t qty) {
    return add_at(book, ask, px, id, qty, index_.bucket(book.instrument, id), book.side[ask].locate(to_key(ask, px)));
  }
  // The same with bucket and place in the ladder found before.
  [[nodiscard]] bool add_at(Book& book, bool ask, std::int64_t px, std::uint64_t id, std::int64_t qty,
                            std::size_t bucket, std::size_t at);
  // Whether add_at() would take it; no less so when an order of that level has left before.
  bool has_room(const Book& book, bool ask, std::size_t at, std::int64_t key, std::int64_t qty) const noexcept {
    const Ladder& ladder = book.side[ask];
    if (!ladder.holds(at, key)) return true;
    std::int64_t sum = 0;
    const Level& level = levels_[ladder.rung(at).level];
    return level.orders > 0 && !__builtin_add_overflow(level.qty, qty, &sum);
  }
  // New quantity in place, 0 < qty; false when the level's sum would not fit.
  [[nodiscard]] bool resize(Book& book, Handle order, std::int64_t qty) noexcept;
  void remove(Book& book, Handle order) noexcept { remove_from(book, order, bucket_of(order)); }
  void remove_from(Book& book, Handle order, std::size_t bucket) noexcept;
  // Absolute quantity of an L2 level, 0 removes it. Old quantity in `before`; false on a level that holds orders.
  [[nodiscard]] bool set_level(Book& book, bool ask, std::int64_t px, std::int64_t qty, std::int64_t& before);
  void clear(Book& book) noexcept;

 private:
  friend class Hints;

  std::size_t bucket_of(Handle h) const noexcept {
    return index_.bucket(index_.salted() ? level_of(h).instrument() : 0, orders_[h].id);
  }
  Handle new_order();
  Handle new_level();
  void free_level(Handle h) noexcept { levels_[h].head = free_levels_, free_levels_ = h; }
  void free_order(Handle h) noexcept { orders_[h].next = free_orders_, orders_[h].level = NO_HANDLE, free_orders_ = h; }
  void unchain(Handle h, std::size_t bucket) noexcept;
  [[gnu::noinline]] void reindex();
  // Of an order with the id that is looked for: whether it is of that book. Orders of other books under one id are
  // counted: they share a bucket until the index takes the instrument into its hash.
  bool same_book(Handle h, std::uint32_t instrument) const noexcept {
    const bool same = level_of(h).instrument() == instrument;
    strangers_ += !same;
    return same;
  }
  Handle insert_level(Book& book, bool ask, std::size_t at, std::int64_t key, std::int64_t qty);
  void erase_level(Book& book, Handle h) noexcept;
  void quantity_changed(Book& book, const Level& level) const noexcept {
    if (book.watched()) [[unlikely]]
      show_quantity(book, level);
  }
  // What a change means for the view and the watched depth; `depth` is the 0-based distance from the best.
  [[gnu::noinline]] void show_quantity(Book& book, const Level& level) const noexcept;
  [[gnu::noinline]] static void show_insert(Book& book, bool ask, std::size_t depth, std::int64_t key,
                                            std::int64_t qty) noexcept;
  [[gnu::noinline]] void show_erase(Book& book, bool ask, std::size_t depth) const noexcept;

  Pool<Order> orders_;
  Pool<Level> levels_;
  Slab slab_;
  OrderIndex index_;
  Handle free_orders_ = NO_HANDLE;
  Handle free_levels_ = NO_HANDLE;
  mutable std::uint32_t strangers_ = 0;
};

// ---- the calls of every message; here, so that they are inlined ----------------------------------------------------

inline Handle BookStore::new_order() {
  constexpr std::size_t MAX_HANDLES = std::numeric_limits<Handle>::max();
  const Handle h = free_orders_;
  if (h != NO_HANDLE) {
    free_orders_ = orders_[h].next;
    return h;
  }
  if (orders_.size() >= MAX_HANDLES) throw std::length_error("more than 2^32 - 1 orders at once");
  return static_cast<Handle>(orders_.extend());
}

inline Handle BookStore::new_level() {
  constexpr std::size_t MAX_HANDLES = std::numeric_limits<Handle>::max();
  const Handle h = free_levels_;
  if (h != NO_HANDLE) {
    free_levels_ = levels_[h].head;
    return h;
  }
  if (levels_.size() >= MAX_HANDLES) throw std::length_error("more than 2^32 - 1 levels at once");
  return static_cast<Handle>(levels_.extend());
}

[[gnu::always_inline]] inline bool BookStore::add_at(Book& book, bool ask, std::int64_t px, std::uint64_t id,
                                                     std::int64_t qty, std::size_t bucket, std::size_t at) {
  const std::int64_t key = to_key(ask, px);
  Ladder& ladder = book.side[ask];
  const bool held = ladder.holds(at, key);
  std::int64_t sum = qty;
  Handle l = NO_HANDLE;
  if (held) {
    l = ladder.rung(at).level;
    const Level& level = levels_[l];
    if (level.orders == 0 || __builtin_add_overflow(level.qty, qty, &sum)) return false;
  }
  if (index_.full() || strangers_ > OrderIndex::MAX_STRANGERS) [[unlikely]] {
    reindex();
    bucket = index_.bucket(book.instrument, id);
  }
  const Handle o = new_order();
  if (!held) {
    try {
      l = insert_level(book, ask, at, key, qty);
    } catch (...) {
      free_order(o);
      throw;
    }
  }
  Level& level = levels_[l];
  Handle& first = index_.first(bucket);
  orders_[o] = Order{id, qty, NO_HANDLE, level.tail, l, first};
  first = o;
  index_.added();
  Handle* const behind = pick(level.tail != NO_HANDLE, &orders_[level.tail].next, &level.head);
  *behind = o;
  level.tail = o;
  ++level.orders;
  level.qty = sum;
  if (held) quantity_changed(book, level);
  return true;
}

inline bool BookStore::resize(Book& book, Handle order, std::int64_t qty) noexcept {
  Level& level = levels_[orders_[order].level];
  std::int64_t sum = 0;
  if (__builtin_add_overflow(level.qty - orders_[order].qty, qty, &sum)) return false;
  orders_[order].qty = qty;
  level.qty = sum;
  quantity_changed(book, level);
  return true;
}

inline void BookStore::unchain(Handle h, std::size_t bucket) noexcept {
  Handle* link = &index_.first(bucket);
  while (*link != h) link = &orders_[*link].chain;
  *link = orders_[h].chain;
  index_.removed();
}

inline void BookStore::remove_from(Book& book, Handle order, std::size_t bucket) noexcept {
  Order& o = orders_[order];
  const Handle l = o.level;
  Level& level = levels_[l];
  unchain(order, bucket);
  Handle* const behind = pick(o.prev != NO_HANDLE, &orders_[o.prev].next, &level.head);
  Handle* const before = pick(o.next != NO_HANDLE, &orders_[o.next].prev, &level.tail);
  *behind = o.next;
  *before = o.prev;
  level.qty -= o.qty;
  free_order(order);
  if (--level.orders == 0) {
    erase_level(book, l);
  } else {
    quantity_changed(book, level);
  }
}

inline Handle BookStore::insert_level(Book& book, bool ask, std::size_t at, std::int64_t key, std::int64_t qty) {
  const Handle h = new_level();
  Ladder& ladder = book.side[ask];
  try {
    ladder.insert(slab_, at, key, h);
  } catch (...) {
    free_level(h);
    throw;
  }
  levels_[h] = Level{key, qty, NO_HANDLE, NO_HANDLE, 0, book.instrument << 1 | static_cast<std::uint32_t>(ask)};
  const std::size_t depth = ladder.depth_of(at);
  book.top_raised |= depth == 0;
  if (book.watched()) [[unlikely]]
    show_insert(book, ask, depth, key, qty);
  return h;
}

inline void BookStore::erase_level(Book& book, Handle h) noexcept {
  const bool ask = levels_[h].ask();
  Ladder& ladder = book.side[ask];
  const std::size_t at = ladder.locate(levels_[h].key), depth = ladder.depth_of(at);
  ladder.erase(at);
  free_level(h);
  if (book.watched()) [[unlikely]]
    show_erase(book, ask, depth);
}

}  // namespace microrisk
