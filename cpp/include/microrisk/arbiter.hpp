// MoldUDP64 datagrams of several lines -> one run of messages in sequence, as records of the input journal.
//
// Arbitration is per message: lines need not pack alike. What comes ahead of a hole is held until the hole is filled,
// is given up, or the window is full. microrisk/feed/arbiter.py is the naive twin.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "microrisk/journal.hpp"
#include "microrisk/paced.hpp"

namespace microrisk {

// Numbers known to exist that have not come: [first, end).
struct Hole {
  std::uint64_t first, end;
  std::int64_t since_ns;  // receive time of the packet that revealed it
};

struct ArbiterCounts {
  Tally taken;       // messages handed on in RUN records
  Tally duplicates;  // copies of messages that were there, or of lost ones
  Tally late;        // of these: the ones that had been given up
  Tally recovered;   // messages that came after the hole they left had been seen
  Tally reordered;   // packets behind a later one of the same line
  Tally malformed, requests, heartbeats, ends, unsequenced, trailing, foreign;
  Tally wild;      // packets whose number is too far ahead to be meant
  Tally behind;    // heartbeats below what is expected: the venue may have begun again
  Tally overflow;  // holes given up because the window was full
  Tally dropped;   // messages held for a join that had no room
  Tally held, held_max, waiting;
  Tally missing;  // numbers in holes now
};

class Arbiter {
 public:
  static constexpr std::size_t MAX_LINES = 26, NAME = 10;
  static constexpr std::size_t MAX_HELD_BYTES = std::size_t{16} << 20;
  static constexpr std::uint64_t MAX_AHEAD = std::uint64_t{1} << 32;

  // `session`: "" = the first that comes. `expected` 0: take what comes first. `window`: messages held at most.
  Arbiter(std::uint16_t feed, std::int64_t midnight_ns, const std::string& session, std::uint64_t expected,
          std::size_t window);

  // A datagram; `cut`: its end is missing. std::length_error, and nothing is done, when the journal's block is full.
  void take(std::size_t line, const std::uint8_t* data, std::size_t size, std::int64_t recv_ns, Journal& out,
            bool cut = false);
  // Blocks whose numbers are known, from `seq` on.
  void take_stream(std::uint64_t seq, const std::uint8_t* blocks, std::size_t size, std::int64_t recv_ns, Journal& out);
  // Declares what is missing below `upto` lost; how many messages.
  std::uint64_t give_up(std::uint64_t upto, std::int64_t recv_ns, Journal& out);
  std::vector<Hole> holes() const;
  // Whether anything is missing, or a session waits.
  bool uneasy() const noexcept { return !holes_.empty() || !waiting_.empty(); }

  // Name of a session that waits to be begun; "" when none does.
  const std::string& waiting() const noexcept { return waiting_; }
  void begin_session(const std::string& name, std::int64_t midnight_ns, std::uint64_t first, std::int64_t recv_ns,
                     Journal& out);
  // Midnight of the day on which a session that is yet unknown would begin.
  void expect_day(std::int64_t midnight_ns) noexcept {
    if (session_.empty()) midnight_ns_ = midnight_ns;
  }
  // The waiting session is none: its datagrams are foreign from now on.
  void refuse_session();

  // From now on messages are held, whatever their number.
  void begin_join() noexcept;
  bool joining() const noexcept { return joining_; }
  // The books stand in front of `seq`: what is held from there on is handed on.
  void joined(std::uint64_t seq, std::int64_t recv_ns, Journal& out);

  // Goes where the records lead, as long as nothing was taken.
  void follow(const std::string& session, std::uint64_t expected, bool ended);

  std::uint64_t expected() const noexcept { return expected_.get(); }
  const std::string& session() const noexcept { return session_; }  // 10 bytes, or none
  bool ended() const noexcept { return ended_.get() != 0; }

  ArbiterCounts counts;
  FineHistogram missing_filled;  // from the sight of a hole to the coming of each piece of it
  struct Line {
    Tally packets, missing;  // numbers that the line jumped over
    std::uint64_t next = 0;
  };
  const std::array<Line, MAX_LINES>& lines() const noexcept { return lines_; }

 private:
  // Consecutive messages, with their lengths.
  struct Chunk {
    std::uint64_t end;
    std::vector<std::uint8_t> bytes;
  };
  struct Waiting {
    std::size_t line;
    std::int64_t recv_ns;
    bool cut;
    std::vector<std::uint8_t> bytes;
  };
  // Blocks of the datagram in hand: numbers [first, end), offsets_[i] where block i begins.
  struct Packet {
    std::uint64_t first, end;
    const std::uint8_t* data;
  };

  void live() noexcept { live_ = true; }
  void require_room(const Journal& out, std::size_t more) const;
  bool of_session(std::size_t line, const std::uint8_t* data, std::size_t size, std::uint64_t seq, std::int64_t recv_ns,
                  Journal& out, bool cut);
  void adopt(const std::string& name, std::uint64_t seq, std::int64_t recv_ns, Journal& out);
  void keep_waiting(const std::string& name, Waiting datagram);
  void put_session(std::uint64_t first, std::int64_t recv_ns, Journal& out) const;
  void note_line(std::size_t line, std::uint64_t seq, std::uint64_t count) noexcept;
  std::size_t read_blocks(const std::uint8_t* data, std::size_t size, std::size_t offset, std::uint64_t count);
  void accept(const Packet& packet, std::int64_t recv_ns, Journal& out);
  void accept_ahead(const Packet& packet, std::int64_t recv_ns, Journal& out);
  void fill(const Packet& packet, std::int64_t recv_ns);
  void reveal(std::uint64_t upto, std::int64_t recv_ns);
  void idle(std::uint64_t count, std::uint64_t seq, std::int64_t recv_ns, Journal& out);
  void hold(const Packet& packet, std::uint64_t first, std::uint64_t end);
  void put_run(std::uint64_t seq, const std::uint8_t* data, std::size_t size, std::int64_t recv_ns, Journal& out);
  void release(std::int64_t recv_ns, Journal& out);
  void lose_first(std::uint64_t upto, std::int64_t recv_ns, Journal& out);
  void settle(std::int64_t recv_ns, Journal& out);
  void drop_first();
  void count_missing() noexcept { counts.missing.set(seen_ - expected() - counts.held.get()); }
  void count_old(std::uint64_t first, std::uint64_t end) noexcept;
  void forget_below(std::uint64_t seq);
  void clear_held() noexcept;
  void drop(std::map<std::uint64_t, Chunk>::iterator chunk);
  bool full() const noexcept { return counts.held.get() > window_ || held_bytes_ > MAX_HELD_BYTES; }

  std::uint16_t feed_;
  std::int64_t midnight_ns_;
  std::size_t window_;
  std::string session_, waiting_;
  Tally expected_;          // next number to hand on
  std::uint64_t seen_ = 0;  // behind the highest number known to exist
  std::uint64_t end_ = 0;   // behind the last message of the session, once the venue has said it; 0: not yet
  Tally ended_;
  bool joining_ = false, live_ = false;
  // [expected, seen) is made of holes and chunks
  std::map<std::uint64_t, Hole> holes_;
  std::map<std::uint64_t, Chunk> chunks_;
  std::size_t held_bytes_ = 0;
  std::deque<std::pair<std::uint64_t, std::uint64_t>> lost_;  // the last ranges given up, rising, [first, end)
  std::deque<std::string> past_;                              // sessions that are over, or refused
  std::vector<Waiting> wait_;
  std::size_t wait_bytes_ = 0;
  std::array<Line, MAX_LINES> lines_;
  std::vector<std::uint32_t> offsets_;
};

}  // namespace microrisk
