// Paced replay: every message has a time at which it is due, whatever became of the ones before it, and its latency is
// counted from there. A machine that stalls makes all messages late that were due meanwhile: none is left out, which is
// what a loop that only times its own calls does (coordinated omission, Gil Tene, "How NOT to measure latency").
#pragma once

#include <array>
#include <bit>
#include <cstddef>
#include <cstdint>

#include "microrisk/engine.hpp"

namespace microrisk {

// Buckets of HdrHistogram with 2 significant digits and unit 1: exact below 256 ns, then 128 an octave, up to 2^40 ns.
// The same index means the same bucket there, so that counts go over without loss.
class FineHistogram {
 public:
  static constexpr std::size_t HALF = 128, FIRST_OCTAVE = 8, LAST_OCTAVE = 39;
  static constexpr std::size_t BUCKETS = 2 * HALF + (LAST_OCTAVE - FIRST_OCTAVE + 1) * HALF;

  static constexpr std::size_t bucket(std::uint64_t ns) noexcept {
    if (ns < 2 * HALF) return static_cast<std::size_t>(ns);
    const auto octave = static_cast<std::size_t>(std::bit_width(ns)) - 1;
    if (octave > LAST_OCTAVE) return BUCKETS - 1;
    return HALF * (octave - FIRST_OCTAVE + 1) + static_cast<std::size_t>(ns >> (octave - 7));
  }
  // Smallest value of a bucket.
  static constexpr std::uint64_t edge(std::size_t bucket) noexcept {
    if (bucket < 2 * HALF) return bucket;
    const std::size_t octave = FIRST_OCTAVE + (bucket - 2 * HALF) / HALF;
    return (HALF + bucket % HALF) << (octave - 7);
  }

  void add(std::uint64_t ns, std::uint64_t times = 1) noexcept {
    counts_[bucket(ns)] += times;
    sum_ += ns * times;
    if (ns > max_) max_ = ns;
  }
  const std::array<std::uint64_t, BUCKETS>& counts() const noexcept { return counts_; }
  std::uint64_t sum() const noexcept { return sum_; }
  std::uint64_t max() const noexcept { return max_; }

 private:
  std::array<std::uint64_t, BUCKETS> counts_{};
  std::uint64_t sum_ = 0, max_ = 0;
};

// When message i is due: i * interval_ns after the start; with time_scale above 0 instead at its own time stamp's
// distance from the first one's, times time_scale. Both 0: all at once, which measures the capacity.
struct Pace {
  double interval_ns = 0.0;
  double time_scale = 0.0;
};

// Time in which a waiting loop did not run: gaps between two readings of the clock above AWAY_NS.
struct Away {
  static constexpr std::uint64_t AWAY_NS = 1'000;
  std::uint64_t ns = 0, max_ns = 0, times = 0;
  void add(std::uint64_t gap_ns) noexcept {
    if (gap_ns <= AWAY_NS) return;
    ns += gap_ns, ++times;
    if (gap_ns > max_ns) max_ns = gap_ns;
  }
};

struct PacedRun {
  FineHistogram latency;  // from due to done
  FineHistogram service;  // from begun to done, decoding included
  std::uint64_t messages = 0;
  std::uint64_t late = 0;  // already due when the one before was done
  std::uint64_t wall_ns = 0, waited_ns = 0;
  Away away;  // while waiting
  std::size_t offset = 0;
};

// Decodes and applies up to max_messages messages at their due times, on this thread, which spins while it waits.
// Rows and best prices that the engine records are thrown away in time, as a consumer would take them.
PacedRun run_paced(Engine& engine, ItchDecoder& decoder, const std::uint8_t* data, std::size_t size, std::size_t offset,
                   std::uint64_t max_messages, Pace pace);

struct Spin {
  FineHistogram gaps;  // between two readings of the clock: its median is what a reading costs
  Away away;
  std::uint64_t wall_ns = 0;
};

// Reads the clock for about `ns` and does nothing else: what the machine adds to every figure.
Spin spin(std::uint64_t ns);

}  // namespace microrisk
