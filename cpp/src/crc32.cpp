// CRC-32 (polynomial 0xEDB88320, reflected) by sixteen tables: one step takes 16 bytes.
#include <array>

#include "bytes.hpp"
#include "microrisk/journal.hpp"

namespace microrisk {

namespace {

constexpr std::size_t STEP = 16;
using Tables = std::array<std::array<std::uint32_t, 256>, STEP>;

constexpr Tables make_tables() noexcept {
  Tables out{};
  for (std::uint32_t i = 0; i < 256; ++i) {
    std::uint32_t crc = i;
    for (int bit = 0; bit < 8; ++bit) crc = crc >> 1 ^ ((crc & 1) != 0 ? 0xEDB88320U : 0);
    out[0][i] = crc;
  }
  for (std::size_t t = 1; t < STEP; ++t) {
    for (std::size_t i = 0; i < 256; ++i) out[t][i] = out[t - 1][i] >> 8 ^ out[0][out[t - 1][i] & 255];
  }
  return out;
}

constexpr Tables TABLES = make_tables();

// What the eight bytes of `word` become when `behind` more bytes of the step follow them.
std::uint32_t eight(std::uint64_t word, std::size_t behind) noexcept {
  std::uint32_t out = 0;
  for (std::size_t i = 0; i < 8; ++i) out ^= TABLES[behind + 7 - i][word >> (8 * i) & 255];
  return out;
}

}  // namespace

std::uint32_t crc32(std::uint32_t crc, const std::uint8_t* data, std::size_t size) noexcept {
  crc = ~crc;
  for (; size >= STEP; data += STEP, size -= STEP) crc = eight(le<8>(data) ^ crc, 8) ^ eight(le<8>(data + 8), 0);
  for (; size > 0; ++data, --size) crc = crc >> 8 ^ TABLES[0][(crc ^ *data) & 255];
  return ~crc;
}

}  // namespace microrisk
