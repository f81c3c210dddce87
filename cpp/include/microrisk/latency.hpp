// Time of one message, from before its decoding to after its alert: a counter of the CPU and a log-linear histogram.
#pragma once

#include <array>
#include <bit>
#include <chrono>
#include <cstdint>

#if defined(__x86_64__)
#include <cpuid.h>
#include <x86intrin.h>
#endif

namespace microrisk {

// Reads the time stamp counter where it runs at a constant rate, std::chrono::steady_clock elsewhere.
class CycleClock {
 public:
  CycleClock() { calibrate(); }

  std::uint64_t ticks() const noexcept {
#if defined(__x86_64__)
    if (tsc_) return __rdtsc();
#endif
    return static_cast<std::uint64_t>(std::chrono::steady_clock::now().time_since_epoch().count());
  }
  std::uint64_t to_ns(std::uint64_t ticks) const noexcept {
    return static_cast<std::uint64_t>(static_cast<double>(ticks) * ns_per_tick_);
  }

 private:
  void calibrate();
  bool tsc_ = false;
  double ns_per_tick_ = 1.0;
};

// 1 ns buckets below 32 ns, then 16 buckets an octave up to 2^40 ns (18 minutes); the last takes the rest.
class Histogram {
 public:
  static constexpr std::size_t LINEAR = 32, PER_OCTAVE = 16, FIRST_OCTAVE = 5, OCTAVES = 35;
  static constexpr std::size_t BUCKETS = LINEAR + OCTAVES * PER_OCTAVE;

  static constexpr std::size_t bucket(std::uint64_t ns) noexcept {
    if (ns < LINEAR) return ns;
    const auto octave = static_cast<std::size_t>(std::bit_width(ns)) - 1;
    if (octave >= FIRST_OCTAVE + OCTAVES) return BUCKETS - 1;
    return LINEAR + (octave - FIRST_OCTAVE) * PER_OCTAVE + ((ns >> (octave - 4)) & 15);
  }
  // Smallest value of a bucket.
  static constexpr std::uint64_t edge(std::size_t bucket) noexcept {
    if (bucket < LINEAR) return bucket;
    const std::size_t octave = FIRST_OCTAVE + (bucket - LINEAR) / PER_OCTAVE;
    return (PER_OCTAVE + (bucket - LINEAR) % PER_OCTAVE) << (octave - 4);
  }

  void add(std::uint64_t ns) noexcept { ++counts_[bucket(ns)]; }
  std::array<std::uint64_t, BUCKETS> take() noexcept {
    const auto out = counts_;
    counts_.fill(0);
    return out;
  }

 private:
  std::array<std::uint64_t, BUCKETS> counts_{};
};

}  // namespace microrisk
