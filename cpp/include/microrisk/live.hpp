// A MoldUDP64 feed of ITCH messages as a live monitor runs it: arbitration of its lines in front, decoder and engine
// behind, the journal between. What arbitration makes are records; what changes books are records that were written.
#pragma once

#include <cstdint>
#include <string>

#include "microrisk/arbiter.hpp"
#include "microrisk/engine.hpp"
#include "microrisk/itch.hpp"
#include "microrisk/journal.hpp"
#include "microrisk/paced.hpp"

namespace microrisk {

// Times of the records of one batch, ns of the steady clock.
struct BatchTimes {
  std::int64_t taken = 0, journalled = 0;
};

// Latency by stage, every message weighing one.
struct StageTimes {
  FineHistogram receive_taken, taken_journalled, journalled_scored, receive_scored;
  void add(const BatchTimes& batch, std::int64_t received, std::int64_t scored, std::uint64_t messages) noexcept;
};

class LiveFeed {
 public:
  LiveFeed(Engine& engine, std::uint16_t number, std::int64_t midnight_ns, const std::string& session,
           std::uint64_t expected, std::size_t window);

  // One record of this feed to the books; how many messages it held. Kinds that are not a feed's change nothing.
  std::uint64_t apply(const Record& record);

  // Something that the caller of the poller should look at soon: a hole, a session that waits, rows that tell of
  // alarms.
  bool urgent() const noexcept { return arbiter.uneasy() || !engine_.rows.empty(); }
  std::uint16_t number() const noexcept { return number_; }
  const ItchDecoder& decoder() const noexcept { return decoder_; }
  // Rises whenever an instrument gets a name.
  std::uint64_t names_version() const noexcept { return names_version_.get(); }
  std::uint64_t messages() const noexcept { return messages_.get(); }
  // Of any line, ns of the steady clock; 0: none yet.
  std::int64_t last_packet_ns() const noexcept { return static_cast<std::int64_t>(last_packet_.get()); }
  void heard(std::int64_t at_ns) noexcept { last_packet_.set(static_cast<std::uint64_t>(at_ns)); }

  // Names, session and numbers; std::invalid_argument for bytes that are not such a state.
  Bytes save() const;
  void load(const std::uint8_t* data, std::size_t size);

  Arbiter arbiter;
  StageTimes stages;

 private:
  std::uint64_t run(const Record& record, bool image);
  void message(const std::uint8_t* p, std::size_t size, std::uint64_t seq, std::int64_t recv_ns, bool image);
  void begin_session(const Record& record);
  void empty_books();

  Engine& engine_;
  ItchDecoder decoder_;
  std::uint16_t number_;
  std::int64_t midnight_ns_;
  Tally names_version_, messages_, last_packet_;
  std::uint64_t sessions_;  // of which the books had messages, or might have
  std::string session_;     // as the records say
  std::uint64_t next_;
  bool ended_ = false;
};

}  // namespace microrisk
