// One side of a book: a sorted array of (price key, level handle), best price at the BACK.
//
// Ask prices are stored as ~price, so that both sides sort upwards with one comparator (~ and not -, because ~ has no
// overflow). Work near the best takes no branch that depends on the data: in front of the array lie GUARD rungs with
// the smallest key, so that the search counts the better ones of the last GUARD rungs without asking for the size;
// behind it lie SLACK unused rungs, so that up to BLOCK rungs are moved as one block of fixed size. A large ladder has
// free rungs in front of its guards too: a level far from the best then moves the worse rungs or the better ones,
// whichever are fewer.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <limits>
#include <new>

#include "microrisk/order_index.hpp"
#include "microrisk/slab.hpp"

namespace microrisk {

constexpr std::int64_t to_key(bool ask, std::int64_t px) noexcept {
  return px ^ -static_cast<std::int64_t>(ask);
}
constexpr std::int64_t to_px(bool ask, std::int64_t key) noexcept {
  return to_key(ask, key);
}

struct Rung {
  std::int64_t key;
  Handle level;
  std::uint32_t count;  // of the last guard: see front()
};
static_assert(sizeof(Rung) == 16);

class Ladder {
 public:
  static constexpr std::size_t GUARD = 8, BLOCK = 4, SLACK = BLOCK + 1;

  std::size_t size() const noexcept { return size_; }
  bool empty() const noexcept { return size_ == 0; }
  // n-th best, 0-based; n < size()
  const Rung& best(std::size_t n = 0) const noexcept { return rungs_[size_ - 1 - n]; }
  // i <= size(); what stands at size() means nothing, but its level is a handle that was once given
  const Rung& rung(std::size_t i) const noexcept { return rungs_[i]; }
  // Behind the best; the GUARD rungs in front of it may be read whatever the size.
  const Rung* end() const noexcept { return rungs_ + size_; }
  // 0-based distance of rung i from the best
  std::size_t depth_of(std::size_t i) const noexcept { return size_ - 1 - i; }

  // Index of the first rung whose key is not smaller; the key is there when rung(i).key equals it.
  std::size_t locate(std::int64_t key) const noexcept {
    const Rung* at = end();
    const std::size_t better = not_below(at, key);
    if (better < GUARD) [[likely]]
      return size_ - better;
    if (size_ <= GUARD) return 0;  // the smallest key of all is a guard's too
    return deep(key);
  }
  // locate() when an earlier answer is still right, which two comparisons tell.
  std::size_t locate_from(std::size_t guess, std::int64_t key) const noexcept {
    if (guess > size_) [[unlikely]]
      return locate(key);
    const bool right = (rungs_[std::ptrdiff_t(guess) - 1].key < key) & ((rungs_[guess].key >= key) | (guess == size_));
    return right ? guess : locate(key);
  }
  bool holds(std::size_t i, std::int64_t key) const noexcept { return (rungs_[i].key == key) & (i < size_); }

  void insert(Slab& slab, std::size_t i, std::int64_t key, Handle level) {
    if (size_ == capacity_) [[unlikely]]
      grow(slab);
    const Rung rung{key, level, 0};
    if (size_ - i > BLOCK) [[unlikely]]
      return insert_deep(i, rung);
    move(i + 1, i);
    rungs_[i] = rung;
    ++size_;
  }
  void erase(std::size_t i) noexcept {
    if (size_ - 1 - i > BLOCK) [[unlikely]]
      return erase_deep(i);
    --size_;
    move(i, i + 1);
  }
  void clear() noexcept { size_ = 0; }

 private:
  static constexpr Rung NONE{std::numeric_limits<std::int64_t>::min(), NO_HANDLE, 0};
  // What an empty ladder shows before it has a block of its own; never written.
  static constexpr Rung NOTHING[GUARD + 1] = {NONE, NONE, NONE, NONE, NONE, NONE, NONE, NONE, NONE};

  // BLOCK rungs, one rung away from their place.
  void move(std::size_t to, std::size_t from) noexcept {
    Rung block[BLOCK];
    std::memcpy(block, rungs_ + from, sizeof(block));
    std::memcpy(static_cast<void*>(rungs_ + to), block, sizeof(block));
  }
  // Far from the best the shorter side makes way: the better rungs backwards, or the worse ones into the free rungs in
  // front of the guards, whose number the last guard keeps.
  [[gnu::noinline]] void insert_deep(std::size_t i, const Rung& rung) noexcept;
  [[gnu::noinline]] void erase_deep(std::size_t i) noexcept;
  std::uint32_t& front() noexcept { return rungs_[-1].count; }
  // How many of the GUARD rungs in front of `at` have a key that is not smaller. Written out: as a loop it becomes
  // vector code that is slower without 64-bit comparisons.
  static std::size_t not_below(const Rung* at, std::int64_t key) noexcept {
    return std::size_t{at[-1].key >= key} + (at[-2].key >= key) + (at[-3].key >= key) + (at[-4].key >= key) +
           (at[-5].key >= key) + (at[-6].key >= key) + (at[-7].key >= key) + (at[-8].key >= key);
  }
  // Behind the first GUARD rungs: three more blocks of them, then by halves.
  [[gnu::noinline]] std::size_t deep(std::int64_t key) const noexcept {
    std::size_t left = size_ - GUARD;
    for (const std::size_t stop = left > 3 * GUARD ? left - 3 * GUARD : 0; left > stop; left -= GUARD) {
      const std::size_t better = not_below(rungs_ + left, key);
      if (better < GUARD) return left - better;
      if (left <= GUARD) return 0;  // the smallest key of all is a guard's too
    }
    const Rung* at =
        std::lower_bound(rungs_, rungs_ + left, key, [](const Rung& r, std::int64_t k) { return r.key < k; });
    return static_cast<std::size_t>(at - rungs_);
  }
  [[gnu::noinline]] void grow(Slab& slab);

  Rung* rungs_ = const_cast<Rung*>(NOTHING + GUARD);
  std::uint32_t size_ = 0, capacity_ = 0;
};

}  // namespace microrisk
