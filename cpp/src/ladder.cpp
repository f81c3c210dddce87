#include "microrisk/ladder.hpp"

#include <bit>
#include <stdexcept>

namespace microrisk {

namespace {

constexpr std::size_t SPARE = Ladder::GUARD + Ladder::SLACK, FIRST = 4 * Ladder::GUARD, LARGE = 256;

void shift(Rung* to, const Rung* from, std::size_t n) noexcept {
  std::memmove(static_cast<void*>(to), from, n * sizeof(Rung));
}

}  // namespace

// A block of 2^k rungs: free ones, GUARD, the ladder with room at its end, SLACK. A block with much room in front and
// none at the end is used better; otherwise the next one is twice as large, an eighth of it in front.
void Ladder::grow(Slab& slab) {
  const std::size_t room = capacity_ == 0 ? 0 : front(), old = capacity_ == 0 ? 0 : room + SPARE + capacity_;
  if (old > 0 && room >= old / 4) {
    const std::size_t back = room / 2;
    shift(rungs_ - back, rungs_, size_);
    rungs_ -= back;
    std::fill_n(rungs_ - GUARD, GUARD, NONE);
    front() = static_cast<std::uint32_t>(room - back);
    capacity_ += static_cast<std::uint32_t>(back);
    return;
  }
  const std::size_t next = old == 0 ? FIRST : 2 * old, ahead = next >= LARGE ? next / 8 : 0;
  if (next > std::numeric_limits<std::uint32_t>::max()) throw std::length_error("more than 2^32 levels on a side");
  auto* block = static_cast<Rung*>(slab.take(static_cast<unsigned>(std::countr_zero(next * sizeof(Rung)))));
  std::memset(static_cast<void*>(block), 0, next * sizeof(Rung));
  std::fill_n(block + ahead, GUARD, NONE);
  std::memcpy(static_cast<void*>(block + ahead + GUARD), rungs_, size_ * sizeof(Rung));
  if (old > 0) slab.give(rungs_ - GUARD - room, static_cast<unsigned>(std::countr_zero(old * sizeof(Rung))));
  rungs_ = block + ahead + GUARD;
  front() = static_cast<std::uint32_t>(ahead);
  capacity_ = static_cast<std::uint32_t>(next - SPARE - ahead);
}

void Ladder::insert_deep(std::size_t i, const Rung& rung) noexcept {
  const std::uint32_t room = front();
  if (i < size_ - i && room > 0) {
    shift(rungs_ - 1, rungs_, i);
    --rungs_;
    ++capacity_;
    rungs_[-std::ptrdiff_t{GUARD}] = NONE;
    front() = room - 1;
  } else {
    shift(rungs_ + i + 1, rungs_ + i, size_ - i);
  }
  rungs_[i] = rung;
  ++size_;
}

void Ladder::erase_deep(std::size_t i) noexcept {
  --size_;
  if (i >= size_ - i) return shift(rungs_ + i, rungs_ + i + 1, size_ - i);
  const std::uint32_t room = front();
  shift(rungs_ + 1, rungs_, i);
  ++rungs_;
  --capacity_;
  rungs_[-1] = NONE;
  front() = room + 1;
}

}  // namespace microrisk
