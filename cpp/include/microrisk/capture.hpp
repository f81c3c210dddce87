// Captures in memory (pcap, pcapng) -> UDP datagrams -> messages of MoldUDP64. No bytes are copied.
//
// The rules are those of microrisk/feed/pcap.py and mold.py, the naive twins. Every length is checked against what is
// there; what a capture holds only in part is handed on with what is there.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

#include "microrisk/spec.hpp"

namespace microrisk {

struct CaptureCounts {
  std::uint64_t packets = 0, datagrams = 0, other = 0, fragments = 0, cut = 0;
  std::int64_t truncated_at = -1;  // offset of a last record that is not whole
};

struct Datagram {
  std::int64_t ts = 0;  // ns UTC; 0: not known
  const std::uint8_t* data = nullptr;
  std::size_t size = 0;
  std::uint32_t dst = 0;
  std::uint16_t port = 0;
  bool cut = false;  // the capture holds only the beginning
};

class Capture {
 public:
  // The bytes must outlive the capture. std::invalid_argument when they begin no capture.
  Capture(const std::uint8_t* data, std::size_t size);

  // Next IPv4 UDP datagram; false at the end.
  bool next(Datagram& out);

  std::size_t offset() const noexcept { return offset_; }
  std::size_t size() const noexcept { return size_; }

  CaptureCounts counts;

 private:
  struct Packet {
    std::int64_t ts;
    const std::uint8_t* data;
    std::size_t size;
    std::uint32_t link;
    bool broken;
  };
  struct Interface {
    unsigned __int128 ticks;  // of a second
    __int128 shift;           // ns
    std::uint32_t link;
    std::int64_t ns(std::uint32_t high, std::uint32_t low) const noexcept;
  };

  bool next_classic(Packet& out) noexcept;
  bool next_block(Packet& out);
  bool packet_of(std::uint32_t kind, const std::uint8_t* body, std::size_t size, Packet& out) const noexcept;
  Interface interface_of(const std::uint8_t* body, std::size_t size) const noexcept;
  bool udp_of(const Packet& packet, Datagram& out) noexcept;
  bool truncate() noexcept;
  std::uint16_t u16(const std::uint8_t* p) const noexcept;
  std::uint32_t u32(const std::uint8_t* p) const noexcept;

  const std::uint8_t* data_;
  std::size_t size_;
  std::size_t offset_ = 0;
  bool swap_ = false;  // the file's byte order is not this machine's
  bool blocks_ = false;
  std::int64_t unit_ = 1;  // ns of a classic file's fraction
  std::uint32_t link_ = 0;
  std::vector<Interface> interfaces_;
};

// Several captures as one, their datagrams in the order of capture; of equal times the first capture's.
class Captures {
 public:
  explicit Captures(std::vector<Capture> captures);
  bool next(Datagram& out);
  const std::vector<Capture>& all() const noexcept { return captures_; }

 private:
  void pull(std::size_t index);

  std::vector<Capture> captures_;
  std::vector<Datagram> heads_;
  std::vector<std::pair<std::int64_t, std::size_t>> order_;  // heap of (time, index)
  bool primed_ = false;
};

// One new message of a transport.
struct Block {
  const std::uint8_t* data = nullptr;
  std::size_t size = 0;
  std::uint64_t seq = 0;
  std::int64_t ts = 0;
};

// Messages that never came.
struct Gap {
  std::string session;  // raw bytes of the transport
  std::uint64_t first, count;
  std::int64_t ts_recv;
};
inline constexpr std::size_t MAX_GAPS = 10'000;

struct TransportCounts {
  std::uint64_t packets = 0, messages = 0, heartbeats = 0, requests = 0, ended = 0, gap = 0, missing = 0, late = 0,
                duplicate_seq = 0, session_reset = 0, malformed = 0, unsequenced = 0, trailing = 0, foreign = 0;
};

// Where the reader stands in one session; `expected` 0: at its beginning, take what comes.
class Sequence {
 public:
  std::uint64_t expected = 0;
  bool ended = false;
  std::int64_t newest = INT64_MIN;  // send time, where the transport has one

  // Declares what lies before `seq` lost; the name goes into the gap.
  void open(std::uint64_t seq, const std::string& name, std::int64_t ts, TransportCounts& counts,
            std::vector<Gap>& gaps);
  // Whether `seq` is new; an old one is counted.
  bool take(std::uint64_t seq, TransportCounts& counts) noexcept;
  void restart() noexcept;

 private:
  bool was_lost(std::uint64_t seq) const noexcept;

  std::vector<std::pair<std::uint64_t, std::uint64_t>> lost_;  // first and last, rising
};

class MoldReader {
 public:
  // `first`: the first sequence expected; 0 takes what comes first
  explicit MoldReader(std::uint64_t first = 0) : first_(first) {}

  // Reads a datagram's header; its messages come from next() before the next open().
  void open(const Datagram& datagram);
  bool next(Block& out) noexcept;

  TransportCounts counts;
  std::vector<Gap> gaps;

 private:
  Sequence& session(const std::uint8_t* name);
  void idle(Sequence& session, std::uint64_t count, std::size_t size) noexcept;

  std::uint64_t first_;
  std::unordered_map<std::string, Sequence> sessions_;
  Sequence* last_ = nullptr;
  std::string last_name_;
  Datagram datagram_;
  std::size_t offset_ = 0;
  std::uint64_t seq_ = 0, left_ = 0;
  bool numbered_ = false;
};

// Messages of captures through a transport (MoldReader, IexReader).
//
// `decode(block, out)` writes at most `reserve` events and returns how many. Ends when fewer than `reserve` places are
// left, after `max_messages`, and in front of the first message behind a gap or a restart.
struct Pulled {
  std::size_t events = 0;
  bool more = true;
};
template <class Transport, class Decode>
Pulled pull(Captures& captures, Transport& transport, Event* out, std::size_t room, std::size_t reserve,
            std::uint64_t max_messages, Decode decode) {
  Pulled done;
  Datagram datagram;
  Block block;
  for (std::uint64_t n = 0; n < max_messages && room - done.events >= reserve;) {
    if (transport.next(block)) {
      if (block.size == 0) continue;  // only uses up its number
      ++n;
      done.events += decode(block, out + done.events);
      continue;
    }
    const std::uint64_t breaks = transport.counts.gap + transport.counts.session_reset;
    if (!captures.next(datagram)) {
      done.more = false;
      break;
    }
    transport.open(datagram);
    if (breaks != transport.counts.gap + transport.counts.session_reset) break;
  }
  return done;
}

}  // namespace microrisk
