#include "microrisk/book.hpp"

#include <algorithm>

namespace microrisk {

BookStore::BookStore(std::size_t reserve, std::uint64_t* growths) : orders_(growths), levels_(growths), slab_(growths) {
  orders_.reserve(reserve + 1);
  levels_.reserve(reserve / 4 + 16);
  orders_[orders_.extend()] = Order{};  // handle 0 means none
  levels_[levels_.extend()] = Level{};
  index_.init(reserve, growths);
}

// Every live order into new chains, in the order of the pool, which is read in sequence; a free record has no level.
// The table doubles, or, when a feed numbers the orders of each instrument anew, takes the instrument into its hash.
void BookStore::reindex() {
  constexpr std::size_t AHEAD = 16;
  const bool salt = strangers_ > OrderIndex::MAX_STRANGERS && !index_.salted();
  strangers_ = 0;
  if (!salt && !index_.full()) return;
  if (index_.full()) index_.widen();
  if (salt) index_.salt();
  const std::size_t n = orders_.size();
  for (std::size_t h = 1; h < n; ++h) {
    const auto next = static_cast<Handle>(h + AHEAD < n ? h + AHEAD : h);
    __builtin_prefetch(index_.slot(bucket_of(next)), 1);
    if (orders_[h].level == NO_HANDLE) continue;
    Handle& first = index_.first(bucket_of(static_cast<Handle>(h)));
    orders_[h].chain = first;
    first = static_cast<Handle>(h);
  }
}

void BookStore::show_quantity(Book& book, const Level& level) const noexcept {
  const bool ask = level.ask();
  if (book.view != nullptr) {
    const std::size_t n = ask ? book.view->n_ask : book.view->n_bid;
    const std::int64_t* pxs = ask ? book.view->ask_px : book.view->bid_px;
    if (n > 0 && level.key >= to_key(ask, pxs[n - 1]))
      TopLevels(*book.view).changed(ask, to_px(ask, level.key), level.qty);
  }
  if (book.watch_depth > 0) {
    const Ladder& ladder = book.side[ask];
    const std::size_t n = std::min<std::size_t>(ladder.size(), book.watch_depth);
    if (level.key >= ladder.best(n - 1).key) book.deep_changed(ask);
  }
}

void BookStore::show_insert(Book& book, bool ask, std::size_t depth, std::int64_t key, std::int64_t qty) noexcept {
  if (book.view != nullptr) TopLevels(*book.view).inserted(ask, depth, to_px(ask, key), qty);
  if (depth < book.watch_depth) book.deep_changed(ask);
}

void BookStore::show_erase(Book& book, bool ask, std::size_t depth) const noexcept {
  if (depth < book.watch_depth) book.deep_changed(ask);
  if (book.view == nullptr || depth >= DEPTH) return;
  const Ladder& ladder = book.side[ask];
  const bool more = ladder.size() >= DEPTH;
  const Level& next = levels_[more ? ladder.best(DEPTH - 1).level : NO_HANDLE];
  TopLevels(*book.view).removed(ask, depth, more, to_px(ask, next.key), next.qty);
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
  for (const bool ask : {false, true}) {
    Ladder& ladder = book.side[ask];
    for (std::size_t i = 0; i < ladder.size(); ++i) {
      const Handle h = ladder.rung(i).level;
      const bool of_orders = levels_[h].orders > 0;
      for (Handle o = of_orders ? levels_[h].head : NO_HANDLE; o != NO_HANDLE;) {
        const Handle next = orders_[o].next;
        unchain(o, bucket_of(o));
        free_order(o);
        o = next;
      }
      free_level(h);
    }
    if (!ladder.empty()) book.deep_changed(ask);
    ladder.clear();
  }
  if (book.view != nullptr) TopLevels(*book.view).cleared();
}

}  // namespace microrisk
