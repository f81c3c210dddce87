// The first DEPTH levels of both sides inside a View.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>

#include "microrisk/spec.hpp"

namespace microrisk {

// The first DEPTH levels of both sides, kept in step with a ladder by three calls.
class TopLevels {
 public:
  explicit TopLevels(View& view) noexcept : view_(view) {}

  void inserted(bool ask, std::size_t at, std::int64_t px, std::int64_t qty) noexcept {
    if (at >= DEPTH) return;
    auto [pxs, qtys, n] = arrays(ask);
    const std::size_t last = std::min<std::size_t>(n, DEPTH - 1);
    for (std::size_t i = last; i > at; --i) pxs[i] = pxs[i - 1], qtys[i] = qtys[i - 1];
    pxs[at] = px, qtys[at] = qty;
    n = static_cast<std::uint8_t>(last + 1);
  }

  // `next_px`, `next_qty`: the level that moves up into the last place, if `more`.
  void removed(bool ask, std::size_t at, bool more, std::int64_t next_px, std::int64_t next_qty) noexcept {
    if (at >= DEPTH) return;
    auto [pxs, qtys, n] = arrays(ask);
    const std::size_t last = n - std::size_t{1};
    for (std::size_t i = at; i < last; ++i) pxs[i] = pxs[i + 1], qtys[i] = qtys[i + 1];
    pxs[last] = more ? next_px : 0, qtys[last] = more ? next_qty : 0;
    if (!more) n = static_cast<std::uint8_t>(last);
  }

  void changed(bool ask, std::int64_t px, std::int64_t qty) noexcept {
    auto [pxs, qtys, n] = arrays(ask);
    for (std::size_t i = 0; i < n; ++i) {
      if (pxs[i] == px) {
        qtys[i] = qty;
        return;
      }
    }
  }

  void cleared() noexcept {
    std::memset(view_.bid_px, 0, sizeof(view_.bid_px));
    std::memset(view_.bid_qty, 0, sizeof(view_.bid_qty));
    std::memset(view_.ask_px, 0, sizeof(view_.ask_px));
    std::memset(view_.ask_qty, 0, sizeof(view_.ask_qty));
    view_.n_bid = view_.n_ask = 0;
  }

 private:
  struct Arrays {
    std::int64_t* px;
    std::int64_t* qty;
    std::uint8_t& n;
  };
  Arrays arrays(bool ask) noexcept {
    return ask ? Arrays{view_.ask_px, view_.ask_qty, view_.n_ask} : Arrays{view_.bid_px, view_.bid_qty, view_.n_bid};
  }

  View& view_;
};

}  // namespace microrisk
