#include "microrisk/ladder.hpp"

#include <bit>
#include <stdexcept>

namespace microrisk {

// A block of 2^k rungs: GUARD of them in front, SLACK behind.
void Ladder::grow(Slab& slab) {
  constexpr std::size_t SPARE = GUARD + SLACK, FIRST = 4 * GUARD;
  const std::size_t old = capacity_ == 0 ? 0 : capacity_ + SPARE, next = old == 0 ? FIRST : 2 * old;
  if (next > std::numeric_limits<std::uint32_t>::max()) throw std::length_error("more than 2^32 levels on a side");
  auto* block = static_cast<Rung*>(slab.take(static_cast<unsigned>(std::countr_zero(next * sizeof(Rung)))));
  std::memset(static_cast<void*>(block), 0, next * sizeof(Rung));
  std::fill_n(block, GUARD, NONE);
  std::memcpy(static_cast<void*>(block + GUARD), rungs_, size_ * sizeof(Rung));
  if (old > 0) slab.give(rungs_ - GUARD, static_cast<unsigned>(std::countr_zero(old * sizeof(Rung))));
  rungs_ = block + GUARD;
  capacity_ = static_cast<std::uint32_t>(next - SPARE);
}

}  // namespace microrisk
