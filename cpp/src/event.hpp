// Small readings of an event that engine and actions share.
#pragma once

#include "microrisk/spec.hpp"

namespace microrisk {

inline bool has(const Event& e, std::uint8_t bit) noexcept {
  return (e.flags & bit) != 0;
}

inline Finding finding_of(Integrity kind, const Event& e) noexcept {
  return Finding{e.ts_event, e.seq, e.order_id, e.px, e.qty, e.instrument, static_cast<std::uint32_t>(kind)};
}

}  // namespace microrisk
