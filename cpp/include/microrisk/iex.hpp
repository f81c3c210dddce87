// IEX-TP segments -> messages of TOPS 1.6, DEEP 1.0 or DEEP+ 1.0 -> events. Layouts come from the generated spec.hpp;
// the rules are those of microrisk/feed/iex.py, in naive form in iex_reference.py.
#pragma once

#include <array>
#include <cstdint>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "microrisk/capture.hpp"
#include "microrisk/spec.hpp"

namespace microrisk {

// Segments of one message protocol.
class IexReader {
 public:
  explicit IexReader(std::uint16_t protocol) : protocol_(protocol) {}

  // Reads a segment's header; its messages come from next() before the next open().
  void open(const Datagram& datagram);
  bool next(Block& out) noexcept;

  // A restart of the stream at the open segment: true once, with the segment's own first sequence and times.
  struct Restart {
    std::int64_t ts_event, ts_recv;
    std::uint64_t seq;
  };
  bool take_restart(Restart& out) noexcept;

  TransportCounts counts;
  std::vector<Gap> gaps;

 private:
  using Key = std::pair<std::uint64_t, std::uint64_t>;  // channel, session
  Sequence& session(const Key& key);
  void restart_at(const Datagram& datagram, std::uint64_t seq) noexcept;

  std::uint16_t protocol_;
  std::map<Key, Sequence> sessions_;
  Sequence* last_ = nullptr;
  Key last_key_{};
  Datagram datagram_;
  std::size_t offset_ = 0, end_ = 0;
  std::uint64_t seq_ = 0, left_ = 0;
  bool broken_ = false;  // the segment says that it is longer than its datagram
  bool restarted_ = false;
  Restart restart_{};
};

// One message protocol -> events, with dense instrument numbers learnt from the symbols.
class IexDecoder {
 public:
  enum class Outcome : std::uint8_t { EVENT, NO_EVENT, MALFORMED, UNKNOWN_TYPE };
  static constexpr std::size_t MAX_EVENTS = 4;  // of one message

  explicit IexDecoder(std::uint16_t protocol);

  // One message; for EVENT `n` events are in `out`, the last of which completes what it completes.
  Outcome message(const Block& block, Event* out, std::size_t& n);

  // The stream begins anew: clear() then gives a CLEAR for every instrument that had a book.
  void restart(const IexReader::Restart& at);
  bool clear(Event& out) noexcept;
  bool clearing() const noexcept { return !to_clear_.empty(); }

  std::uint16_t protocol() const noexcept { return protocol_; }
  const std::array<std::uint64_t, 256>& counts() const noexcept { return counts_; }
  // 8 characters as sent, by instrument number
  const std::vector<std::array<char, 8>>& symbols() const noexcept { return symbols_; }

  std::uint64_t messages = 0;  // of every kind; malformed and unknown ones too
  std::uint64_t malformed = 0;
  std::uint64_t unknown_type = 0;
  std::uint64_t synthetic = 0;  // CLEARs
  std::int64_t first_ts = NULL_TS, last_ts = NULL_TS;

 private:
  struct Known {
    std::int64_t px[2] = {0, 0};  // of the quote that stands: bid, ask
    bool held[2] = {false, false};
    bool booked = false;         // had a book event since the stream began
    bool in_transition = false;  // the last price level update has not completed its event
  };

  Outcome decode(const std::uint8_t* p, Event* out, std::size_t& n, Known& known) noexcept;
  void quote(const std::uint8_t* p, Event* out, std::size_t& n, Known& known) const noexcept;
  std::uint32_t instrument(const std::uint8_t* symbol);
  void rehash();

  std::uint16_t protocol_;
  std::array<std::uint64_t, 256> counts_{};
  std::array<std::uint8_t, 256> lengths_{};
  std::vector<std::array<char, 8>> symbols_;
  std::vector<Known> known_;
  std::vector<std::uint32_t> slots_;  // number + 1 by hash of the symbol; a power of two
  std::vector<std::uint32_t> to_clear_;
  IexReader::Restart restart_{};
};

// Events of captures: CLEARs of restarts, then messages (see pull).
Pulled pull_iex(Captures& captures, IexReader& reader, IexDecoder& decoder, Event* out, std::size_t room,
                std::uint64_t max_messages);

}  // namespace microrisk
