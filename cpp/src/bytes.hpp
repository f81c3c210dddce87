// Integers out of bytes, in either order and at any address.
#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>

namespace microrisk {

static_assert(std::endian::native == std::endian::little);

template <std::size_t N>
std::uint64_t le(const std::uint8_t* p) noexcept {
  std::uint64_t v = 0;
  std::memcpy(&v, p, N);
  return v;
}

template <std::size_t N>
std::uint64_t be(const std::uint8_t* p) noexcept {
  static_assert(N == 2 || N == 4 || N == 8);
  const std::uint64_t v = le<N>(p);
  if constexpr (N == 2) return __builtin_bswap16(static_cast<std::uint16_t>(v));
  if constexpr (N == 4) return __builtin_bswap32(static_cast<std::uint32_t>(v));
  if constexpr (N == 8) return __builtin_bswap64(v);
}

}  // namespace microrisk
