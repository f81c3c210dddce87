#include "microrisk/latency.hpp"

namespace microrisk {

void CycleClock::calibrate() {
#if defined(__x86_64__)
  unsigned a = 0, b = 0, c = 0, d = 0;
  constexpr unsigned INVARIANT_TSC = 1U << 8;
  tsc_ = __get_cpuid(0x80000007, &a, &b, &c, &d) != 0 && (d & INVARIANT_TSC) != 0;
#endif
  using Clock = std::chrono::steady_clock;
  const auto begin = Clock::now();
  const std::uint64_t first = ticks();
  constexpr auto LONG_ENOUGH = std::chrono::milliseconds(5);
  while (Clock::now() - begin < LONG_ENOUGH) {
  }
  const std::uint64_t passed = ticks() - first;
  const auto ns = std::chrono::duration_cast<std::chrono::nanoseconds>(Clock::now() - begin).count();
  ns_per_tick_ = static_cast<double>(ns) / static_cast<double>(passed);
}

}  // namespace microrisk
