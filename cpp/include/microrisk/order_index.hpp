// (instrument, order id) -> handle in the order pool: open addressing, linear probing, backward-shift deletion.
//
// A slot is 8 bytes, so that a cache line holds eight: 32 bits of hash and the handle. The id itself is compared in the
// pool's record, which the caller touches next anyway. The low three bits of the id stay the low three bits of the
// home slot: ids that a venue gives out in sequence share a cache line, which is warm while its orders are young.
// For the same reason the instrument does not enter the hash, until a feed turns up that numbers the orders of each
// instrument anew: many records of one hash would lengthen the probes, so the index is then rebuilt with it.
// Deletion moves later entries of the run back, so there are no tombstones and lookups never degrade with age.
#pragma once

#include <cstdint>

#include "microrisk/memory.hpp"

namespace microrisk {

using Handle = std::uint32_t;
inline constexpr Handle NO_HANDLE = 0;

class OrderIndex {
 public:
  void init(std::size_t reserve, std::uint64_t* growths) {
    growths_ = growths;
    slots_.count_into(growths);
    std::size_t n = 1024;
    while (n < 2 * reserve) n *= 2;
    slots_.resize(n);
  }

  std::uint32_t hash(std::uint32_t instrument, std::uint64_t id) const noexcept {
    std::uint64_t x = (id >> 3) ^ (instrument * salt_);
    x ^= x >> 32;
    x *= 0xD6E8FEB86659FD93ULL;
    x ^= x >> 32;
    x *= 0xD6E8FEB86659FD93ULL;
    return (static_cast<std::uint32_t>(x >> 32) << 3) | static_cast<std::uint32_t>(id & 7);
  }

  // Handle whose record `same(handle)` accepts, or NO_HANDLE.
  template <class Same>
  Handle find(std::uint32_t h, Same same) const noexcept {
    const std::size_t mask = slots_.size() - 1;
    for (std::size_t i = h & mask; slots_[i].handle != NO_HANDLE; i = (i + 1) & mask) {
      if (slots_[i].hash == h && same(slots_[i].handle)) return slots_[i].handle;
    }
    return NO_HANDLE;
  }

  // The key must not be present. `key_hash(handle)` is hash() of a record's own key, asked for when it changes.
  template <class KeyHash>
  void insert(std::uint32_t h, Handle handle, KeyHash key_hash) {
    if (2 * (used_ + 1) > slots_.size()) grow();
    if (place(h, handle) > MAX_EQUAL && salt_ == 0) salt(key_hash);
    ++used_;
  }

  // The handle must be present under `h`.
  void erase(std::uint32_t h, Handle handle) noexcept {
    const std::size_t mask = slots_.size() - 1;
    std::size_t hole = h & mask;
    while (slots_[hole].handle != handle) hole = (hole + 1) & mask;
    for (std::size_t i = (hole + 1) & mask; slots_[i].handle != NO_HANDLE; i = (i + 1) & mask) {
      const std::size_t home = slots_[i].hash & mask;
      // an entry may move into the hole unless its home lies behind the hole (cyclically)
      if (((i - home) & mask) >= ((i - hole) & mask)) {
        slots_[hole] = slots_[i];
        hole = i;
      }
    }
    slots_[hole] = Slot{0, NO_HANDLE};
    --used_;
  }

  std::size_t size() const noexcept { return used_; }

 private:
  struct Slot {
    std::uint32_t hash;
    Handle handle;
  };

  static constexpr std::uint64_t SALT = 0x9E3779B97F4A7C15ULL;
  static constexpr std::size_t MAX_EQUAL = 8;

  // Returns how many records of the same hash it passed.
  std::size_t place(std::uint32_t h, Handle handle) noexcept {
    const std::size_t mask = slots_.size() - 1;
    std::size_t i = h & mask, equal = 0;
    for (; slots_[i].handle != NO_HANDLE; i = (i + 1) & mask) equal += slots_[i].hash == h;
    slots_[i] = Slot{h, handle};
    return equal;
  }

  template <class KeyHash>
  [[gnu::noinline]] void salt(KeyHash key_hash) {
    Arena<Slot> before(growths_);
    before.resize(slots_.size());
    slots_.swap(before);
    salt_ = SALT;
    for (std::size_t i = 0; i < before.size(); ++i) {
      if (before[i].handle != NO_HANDLE) place(key_hash(before[i].handle), before[i].handle);
    }
  }

  [[gnu::noinline]] void grow() {
    Arena<Slot> before(growths_);
    before.resize(2 * slots_.size());
    slots_.swap(before);
    for (std::size_t i = 0; i < before.size(); ++i) {
      if (before[i].handle != NO_HANDLE) place(before[i].hash, before[i].handle);
    }
  }

  Arena<Slot> slots_;
  std::size_t used_ = 0;
  std::uint64_t salt_ = 0;
  std::uint64_t* growths_ = nullptr;
};

}  // namespace microrisk
