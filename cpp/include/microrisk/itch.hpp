// Nasdaq TotalView-ITCH 5.0 bytes -> events. Layouts come from the generated spec.hpp.
//
// Framing: a 2-byte big-endian length before each message. It is authoritative: an unknown type, or a known type of
// another length, is skipped by it and counted. Length zero before a known type is the framing of some writers (the
// length is then the type's own); otherwise it is the end mark, and what follows is counted as trailing.
#pragma once

#include <array>
#include <cstdint>
#include <cstring>
#include <string>
#include <vector>

#include "microrisk/spec.hpp"

namespace microrisk {

inline constexpr std::uint32_t ALL_INSTRUMENTS = 0xFFFFFFFF;

class ItchDecoder {
 public:
  enum class Outcome : std::uint8_t { EVENT, NO_EVENT, MALFORMED, UNKNOWN_TYPE };
  enum class Frame : std::uint8_t { MESSAGE, INCOMPLETE, ENDED };
  struct Message {
    const std::uint8_t* data;
    std::size_t size;
  };

  ItchDecoder(std::int64_t midnight_ns, bool loose_framing)
      : midnight_ns_(midnight_ns), loose_(loose_framing), symbols_(std::size_t{1} << 16) {}

  // Next framed message at `offset`, which moves behind it. INCOMPLETE leaves the offset at the message's length field;
  // ENDED moves it to `size` and counts what was left as trailing.
  Frame next(const std::uint8_t* data, std::size_t size, std::size_t& offset, Message& out) noexcept;

  // Whether frames are plain: a length and as many bytes. Otherwise only next() knows where a message begins.
  bool plain() const noexcept { return !loose_ && !mark_open_ && !ended; }

  // Counts a message that its caller decodes: of a known type and the right length. Returns its time.
  std::int64_t accept(const std::uint8_t* p) noexcept;
  // A locate's symbol, 8 characters, as a saved state has it.
  void name(std::uint16_t locate, const std::uint8_t* symbol) noexcept { learn(symbol, locate, true); }
  // Whether the locate of an add needs learn() (its symbol is not known yet).
  bool unnamed(std::uint16_t locate) const noexcept { return (named_[locate >> 6] >> (locate & 63) & 1) == 0; }

  // One bare message. `out` is an event only for EVENT, and scratch otherwise.
  Outcome message(Message m, std::uint64_t seq, std::int64_t ts_recv, Event& out) noexcept;

  // The event of the message counted last, once more; the caller knows that it has one.
  void reread(Message m, Event& out) noexcept;

  const std::array<std::uint64_t, 256>& counts() const noexcept { return counts_; }
  // 8 characters as sent; all zero bytes: not known
  const std::vector<std::array<char, 8>>& symbols() const noexcept { return symbols_; }

  std::uint64_t messages = 0;  // framed messages of every kind; malformed and unknown ones too
  std::uint64_t malformed = 0;
  std::uint64_t unknown_type = 0;
  std::uint64_t trailing = 0;  // bytes
  bool ended = false;
  std::int64_t first_ts = NULL_TS, last_ts = NULL_TS;

 private:
  Outcome decode(const std::uint8_t* p, Event& out) noexcept;
  void learn(const std::uint8_t* symbol, std::uint16_t locate, bool directory) noexcept;
  void end(std::size_t size, std::size_t& offset) noexcept;

  std::int64_t midnight_ns_;
  bool loose_;
  bool mark_open_ = false;  // the end mark was the last thing in the buffer: its next byte may still tell otherwise
  std::array<std::uint64_t, 256> counts_{};
  std::vector<std::array<char, 8>> symbols_;
  std::array<std::uint64_t, 1024> named_{};  // bit of each locate with a symbol: 8 KB that stay in the first cache
};

inline std::int64_t ItchDecoder::accept(const std::uint8_t* p) noexcept {
  std::uint64_t high;  // bytes 3..10: tracking number, then the time
  std::memcpy(&high, p + itch::add_order::timestamp_at - 2, 8);
  ++messages;
  ++counts_[*p];
  last_ts = midnight_ns_ + static_cast<std::int64_t>(__builtin_bswap64(high) & 0xFFFFFFFFFFFFULL);
  if (first_ts == NULL_TS) [[unlikely]]
    first_ts = last_ts;
  return last_ts;
}

}  // namespace microrisk
