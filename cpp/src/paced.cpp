#include "microrisk/paced.hpp"

#include <algorithm>

namespace microrisk {

namespace {

// Records kept before they are thrown away: the room is taken before the first message.
constexpr std::size_t KEPT = std::size_t{1} << 14;

// A reading that neither begins before the work in front of it is done nor lets the work behind it begin early: without
// fences the counter is read while loads are still on their way, and a cache miss would not show.
class FencedClock {
 public:
  FencedClock() : per_ns_(static_cast<double>(LONG) / static_cast<double>(clock_.to_ns(LONG))) {}

  std::uint64_t read() const noexcept {
    fence();
    const std::uint64_t t = clock_.ticks();
    fence();
    return t;
  }
  std::uint64_t to_ns(std::uint64_t ticks) const noexcept { return clock_.to_ns(ticks); }
  double to_ticks(double ns) const noexcept { return ns * per_ns_; }

 private:
  static constexpr std::uint64_t LONG = std::uint64_t{1} << 40;
  static void fence() noexcept {
#if defined(__x86_64__)
    _mm_lfence();
#endif
  }

  CycleClock clock_;
  double per_ns_;
};

// Event time of the message at `offset`, ns since midnight; every ITCH message has it at the same place.
std::int64_t stamp_at(const std::uint8_t* data, std::size_t size, std::size_t offset) noexcept {
  const std::size_t at = offset + 2 + itch::add_order::timestamp_at;
  if (at + 6 > size) return 0;
  std::uint64_t ns = 0;
  for (std::size_t i = 0; i < 6; ++i) ns = ns << 8 | data[at + i];
  return static_cast<std::int64_t>(ns);
}

class Schedule {
 public:
  Schedule(const FencedClock& clock, Pace pace, std::int64_t first)
      : step_(clock.to_ticks(pace.interval_ns)), scale_(clock.to_ticks(pace.time_scale)), first_(first) {}

  bool by_stamps() const noexcept { return scale_ > 0; }
  // Ticks after the start; never before an earlier message's, even where the recorded times go back.
  std::uint64_t due(std::uint64_t i, std::int64_t stamp) noexcept {
    const double after = by_stamps() ? scale_ * static_cast<double>(stamp - first_) : step_ * static_cast<double>(i);
    last_ = std::max(last_, static_cast<std::uint64_t>(std::max(after, 0.0)));
    return last_;
  }

 private:
  double step_, scale_;
  std::int64_t first_;
  std::uint64_t last_ = 0;
};

std::uint64_t wait_until(const FencedClock& clock, std::uint64_t now, std::uint64_t due, PacedRun& run) noexcept {
  const std::uint64_t begin = now;
  while (now < due) {
    const std::uint64_t next = clock.read();
    run.away.add(clock.to_ns(next - now));
    now = next;
  }
  run.waited_ns += clock.to_ns(now - begin);
  return now;
}

void drain(Engine& engine) noexcept {
  if (engine.rows.size() >= KEPT) engine.rows.clear();
  if (engine.bbo.size() >= KEPT) engine.bbo.clear();
}

}  // namespace

PacedRun run_paced(Engine& engine, ItchDecoder& decoder, const std::uint8_t* data, std::size_t size, std::size_t offset,
                   std::uint64_t max_messages, Pace pace) {
  const FencedClock clock;
  PacedRun run;
  engine.rows.reserve(2 * KEPT);
  engine.bbo.reserve(2 * KEPT);
  Schedule schedule(clock, pace, stamp_at(data, size, offset));
  const std::uint64_t start = clock.read();
  std::uint64_t now = start;
  for (std::uint64_t i = 0; i < max_messages; ++i) {
    const std::uint64_t due = start + schedule.due(i, schedule.by_stamps() ? stamp_at(data, size, offset) : 0);
    const bool late = now > due;
    now = wait_until(clock, now, due, run);
    const std::uint64_t before = decoder.messages;
    offset = engine.run_itch(decoder, data, size, offset, 1);
    if (decoder.messages == before) break;
    const std::uint64_t done = clock.read();
    run.latency.add(clock.to_ns(done - due));
    run.service.add(clock.to_ns(done - now));
    run.late += late ? 1 : 0;
    ++run.messages;
    now = done;
    drain(engine);
  }
  run.wall_ns = clock.to_ns(now - start);
  run.offset = offset;
  return run;
}

Spin spin(std::uint64_t ns) {
  const FencedClock clock;
  Spin out;
  const std::uint64_t start = clock.read();
  const auto end = start + static_cast<std::uint64_t>(clock.to_ticks(static_cast<double>(ns)));
  for (std::uint64_t now = start; now < end;) {
    const std::uint64_t next = clock.read();
    const std::uint64_t gap = clock.to_ns(next - now);
    out.gaps.add(gap);
    out.away.add(gap);
    now = next;
    out.wall_ns = clock.to_ns(now - start);
  }
  return out;
}

}  // namespace microrisk
