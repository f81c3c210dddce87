// (instrument, order id) -> handle in the order pool: hash chains whose links lie in the order records themselves.
//
// The table holds one 4-byte handle a bucket, the first order of its chain; a lookup reads the bucket and then the
// order record, which every message needs anyway. At one order for two to four buckets most chains have one link. The
// low four bits of the id stay the low bits of the bucket: ids that a venue gives out in sequence share a cache line,
// which is warm while its orders are young, whatever the distance of the oldest reference that still rests. For the
// same reason the instrument does not enter the hash, until a feed turns up that numbers the orders of each instrument
// anew: many records of one id would lengthen the chains, so the index is then rebuilt with it.
#pragma once

#include <cstdint>

#include "microrisk/memory.hpp"

namespace microrisk {

using Handle = std::uint32_t;
inline constexpr Handle NO_HANDLE = 0;

class OrderIndex {
 public:
  static constexpr std::uint32_t MAX_STRANGERS = 256;

  void init(std::size_t reserve, std::uint64_t* growths) {
    growths_ = growths;
    buckets_.count_into(growths);
    std::size_t n = 1024;
    while (n < 2 * reserve) n *= 2;
    buckets_.resize(n);
    mask_ = n - 1;
  }

  std::size_t bucket(std::uint32_t instrument, std::uint64_t id) const noexcept {
    std::uint64_t x = (id >> 4) ^ (instrument * salt_);
    x *= 0x9E3779B97F4A7C15ULL;
    x ^= x >> 32;
    return ((x << 4) | (id & 15)) & mask_;
  }
  Handle first(std::size_t bucket) const noexcept { return buckets_[bucket]; }
  Handle& first(std::size_t bucket) noexcept { return buckets_[bucket]; }
  const Handle* slot(std::size_t bucket) const noexcept { return buckets_.data() + bucket; }

  std::size_t size() const noexcept { return used_; }
  std::size_t buckets() const noexcept { return mask_ + 1; }
  std::size_t bytes() const noexcept { return buckets_.capacity() * sizeof(Handle); }
  void added() noexcept { ++used_; }
  void removed() noexcept { --used_; }
  bool full() const noexcept { return 2 * used_ >= buckets_.size(); }
  // Changes with the meaning of a bucket number.
  std::uint32_t version() const noexcept { return version_; }
  bool salted() const noexcept { return salt_ != 0; }

  // Empties the table for a rebuild by the caller: twice the size, or salted with the instrument.
  void widen() {
    const std::size_t n = 2 * buckets_.size();
    Arena<Handle> bigger(growths_);
    bigger.resize(n);  // may throw; nothing is lost then
    buckets_.swap(bigger);
    mask_ = n - 1;
    ++version_;
  }
  void salt() noexcept {
    salt_ = 0xD6E8FEB86659FD93ULL;
    ++version_;
    std::memset(static_cast<void*>(buckets_.data()), 0, buckets_.size() * sizeof(Handle));
  }

 private:
  Arena<Handle> buckets_;
  std::size_t mask_ = 0;
  std::size_t used_ = 0;
  std::uint64_t salt_ = 0;
  std::uint32_t version_ = 0;
  std::uint64_t* growths_ = nullptr;
};

}  // namespace microrisk
